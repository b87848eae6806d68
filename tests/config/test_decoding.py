"""The one list of decoding options: its ranges, and the places that take their options from it."""

from dataclasses import asdict, fields

import pytest

from blip2vqa.config.common import GenerationArguments
from blip2vqa.config.decoding import DECODING, Decoding, check_decoding, find_out_of_range


def test_the_arguments_have_its_options_defaults_and_help():
    arguments = {field.name: field for field in fields(GenerationArguments)}
    for name, setting in DECODING.items():
        assert arguments[name].type in (setting.type, setting.type | None)
        assert arguments[name].default == (None if name == "max_new_tokens" else setting.default)
        assert arguments[name].metadata["help"] == setting.metadata["help"]
    assert list(arguments) == [*DECODING, "bertscore_model"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, []),
        (asdict(Decoding()), []),
        ({"num_beams": None, "max_new_tokens": None}, []),
        ({"num_beams": 0}, [("num_beams", 0, "from 1 to 1,048,576")]),
        ({"max_new_tokens": 10**9}, [("max_new_tokens", 10**9, "from 1 to 1,048,576")]),
        ({"min_new_tokens": -1}, [("min_new_tokens", -1, "from 0 to 1,048,576")]),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, [("min_new_tokens", 5, "at most max_new_tokens, 4")]),
        ({"min_new_tokens": 4, "max_new_tokens": 4}, []),
        ({"temperature": 0.0}, [("temperature", 0.0, "above 0")]),
        ({"top_p": 1.5}, [("top_p", 1.5, "above 0, at most 1")]),
        ({"top_p": 0}, [("top_p", 0, "above 0, at most 1")]),
        ({"top_p": 1}, []),
        ({"do_sample": True, "num_beams": 2}, [("num_beams", 2, "1, since do_sample draws one text at a time")]),
        ({"sampling_seed": (1 << 64) - 1}, []),
    ],
)
def test_ranges(options, found):
    assert find_out_of_range(options) == found


def test_a_problem_is_one_line():
    assert check_decoding({"num_beams": 0, "style": "other"}) == [
        "--num_beams: 0 is out of range; it must be from 1 to 1,048,576"
    ]


def test_it_is_described_in_a_few_words():
    assert Decoding().describe() == "greedy, up to 10 tokens"
    assert Decoding(num_beams=3, min_new_tokens=2).describe() == "3 beams, 2 to 10 tokens"
    sampled = Decoding(do_sample=True, temperature=0.7, top_p=0.9, sampling_seed=4)
    assert sampled.describe() == "sampled (temperature 0.7, top p 0.9, seed 4), up to 10 tokens"
