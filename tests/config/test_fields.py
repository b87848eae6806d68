"""How arguments are declared: ranges, and dataclasses that `HfArgumentParser` itself can read."""

import math
from dataclasses import dataclass, fields, replace

import pytest
from transformers import HfArgumentParser

from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.fields import Arguments, Option, Range, option
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.generate import VQA_ARGUMENTS
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.exchange.commands import COMMANDS


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "text"),
    [
        ({"at_least": 1}, [1, 2], [0, -1, math.nan], "at least 1"),
        ({"above": 0}, [1e-9, math.inf], [0, -1, math.nan], "above 0"),
        ({"at_least": 0, "at_most": 1}, [0, 0.5, 1], [-1e-9, 1.1], "from 0 to 1"),
        ({"above": 0, "at_most": 1}, [0.1, 1], [0, 1.1], "above 0, at most 1"),
        ({"above": 0, "below": 1}, [0.1], [0, 1], "between 0 and 1, both excluded"),
        ({"at_least": 0, "below": 1}, [0, 0.9], [1], "at least 0, below 1"),
        ({"above": 0, "below": math.inf}, [1], [0, math.inf, math.nan], "above 0"),
    ],
)
def test_a_range_names_what_lies_outside(limits, inside, outside, text):
    assert [Range(**limits).problem("x", value) for value in inside] == [[]] * len(inside)
    for value in outside:
        assert Range(**limits).problem("x", value) == [f"--x: {value!r} is out of range; it must be {text}"]


def test_ranges_of_a_dataclass():
    @dataclass
    class Shares(Arguments):
        count: int | None = option(None, "A count.", at_least=1)
        share: float = option(0.5, "A share of 50 %.", "--part", above=0, at_most=1, group="Shares")
        names: list[str] = option(["a"], "Names.")

    one, other = Shares(), Shares(names=[])
    assert one.check() == [] and one.names == ["a"] and one.names is not Shares().names
    assert len(replace(other, count=0, share=2).check()) == 2
    assert all(isinstance(field, Option) for field in fields(Shares))


@pytest.mark.parametrize(
    "dataclasses",
    [FINETUNE_ARGUMENTS, [InferenceArguments, FeatureArguments], [CaptionArguments], VQA_ARGUMENTS]
    + [[command.arguments] for command in COMMANDS.values()],
    ids=lambda dataclasses: dataclasses[0].__name__,
)
def test_the_dataclasses_are_those_of_upstreams_parser(dataclasses, capsys):
    parser = HfArgumentParser(dataclasses)
    use_cpu = ["--use_cpu"] if dataclasses is FINETUNE_ARGUMENTS else []
    parts = parser.parse_args_into_dataclasses(use_cpu, look_for_args_file=False)
    assert [type(part) for part in parts] == dataclasses
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert capsys.readouterr().out
