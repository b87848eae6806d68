"""Styles of captions: their options lie beneath all others, and a style of one's own is checked."""

import json

import pytest

from blip2vqa.config.styles import known_styles, read_style, style_file
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import parse_run


def test_a_style_lies_beneath_the_configuration_and_the_flags(write):
    config = write(
        "config.json", json.dumps({"style": "detailed", "task": "caption", "lora_r": 4, "max_new_tokens": 33})
    )
    run = parse_run(config, "--max_new_tokens", "44", "--csv_path", "t.csv")
    style = read_style("detailed")
    assert (run.decoding.max_new_tokens, run.lora.lora_r) == (44, 4)
    assert (run.decoding.min_new_tokens, run.decoding.num_beams, run.lora.lora_alpha) == (10, 3, 32)
    assert (run.data.prompt, run.data.captions) == (style["prompt"], style["captions"])
    other = parse_run(config, "--style=concise", "--csv_path", "t.csv")
    assert (other.data.prompt, other.decoding.min_new_tokens) == (read_style("concise")["prompt"], 0)
    # A rerun from what was resolved is the same, whatever becomes of the style.
    assert parse_run(write("run.json", json.dumps(run.resolved))).resolved == run.resolved


@pytest.mark.parametrize("name", ["pirate", "absent/mine.json"])
def test_an_unknown_style_names_the_known_ones(name):
    assert known_styles() == ["concise", "creative", "detailed"]
    with pytest.raises(InputError, match="not known; choose from concise, creative, detailed, or name a JSON"):
        parse_run("--task", "caption", "--style", name)
    with pytest.raises(InputError, match="not known; choose from"):
        style_file(name)


def test_a_style_of_ones_own(write):
    mine = write("pirate.json", json.dumps({"prompt": "Arr:", "num_beams": 2, "captions": "longest"}))
    run = parse_run("--task", "caption", "--style", mine, "--csv_path", "t.csv")
    assert (run.data.prompt, run.data.captions, run.decoding.num_beams) == ("Arr:", "longest", 2)
    assert run.data.check() == []
    for content, message in (
        ('{"num_beams": 2}', 'with a "prompt"'),
        ("[1]", 'with a "prompt"'),
        ("{", "not readable"),
    ):
        with pytest.raises(InputError, match=message):
            read_style(write("mine.json", content))
    with pytest.raises(InputError, match="key num_beam: unknown; did you mean num_beams"):
        parse_run("--task", "caption", "--style", write("mine.json", '{"prompt": "x", "num_beam": 2}'))


@pytest.mark.parametrize(
    ("style", "problem"),
    [
        ({"prompt": "a", "max_new_tokens": "forty"}, "max_new_tokens is 'forty'; it must be of type int"),
        ({"prompt": "a", "temprature": 1.0}, "did you mean temperature?"),
        ({"prompt": "a", "do_sample": True, "temperature": 0}, "--temperature: 0 is out of range"),
        ({"prompt": "a", "num_beams": 0}, "--num_beams: 0 is out of range"),
        ({"prompt": "a", "min_new_tokens": 9, "max_new_tokens": 3}, "--min_new_tokens: 9 is out of range"),
        ({"prompt": "{question}"}, "contains {question}"),
    ],
)
def test_a_style_of_ones_own_is_checked(style, problem, write):
    with pytest.raises(InputError) as caught:
        read_style(write("mine.json", json.dumps(style)))
    assert problem in "\n".join(caught.value.problems)
