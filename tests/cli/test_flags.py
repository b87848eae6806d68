"""Every command with no arguments, and with each of its flags alone: one line that says what is missing, with an example."""

import pytest

from blip2vqa.cli import caption, exchange, finetune, generate, infer
from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.generate import VQA_ARGUMENTS
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.parser import Parser
from blip2vqa.config.training import FINETUNE_OPTIONS, trainer_flags
from blip2vqa.exchange.commands import COMMANDS
from blip2vqa.utils.errors import InputError

SCRIPTS = {
    "finetune": (finetune.main, FINETUNE_OPTIONS),
    "infer": (infer.main, [InferenceArguments, FeatureArguments]),
    "caption": (caption.main, [CaptionArguments, FeatureArguments]),
    "generate": (generate.main, VQA_ARGUMENTS),
}
ENDS = {"h", "help", "version"}


def refusal(main, argv: list[str]) -> str:
    with pytest.raises(InputError) as caught:
        main(argv)
    (problem,) = caught.value.problems
    assert "; for example: " in problem and "\n" not in problem
    return problem


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_flag_alone(name):
    main, dataclasses = SCRIPTS[name]
    known = trainer_flags() if name == "finetune" else ()
    assert ": missing; for example: " in refusal(main, [])
    # Trainer's own are parsed alike: every tenth stands for them.
    flags = [flag for flag in Parser(dataclasses, "", "").options if "-" not in flag and flag not in ENDS]
    for flag in [*flags, *known[::10]]:
        refusal(main, [f"--{flag}"])


@pytest.mark.parametrize("flag", ["--seed=3", "--batch_size=2", "--output_dir=out", "--estimate", "--max_steps=5"])
def test_one_flag_with_its_value(flag):
    assert refusal(finetune.main, [flag]).startswith("--csv_path")


def test_exchange_without_a_command_and_each_command_with_each_flag_alone():
    assert refusal(exchange.main, []).startswith("command: missing; choose from list, ")
    refusal(exchange.main, ["--store"])
    for name, command in COMMANDS.items():
        flags = [flag for flag in Parser([command.arguments], "", "").options if "-" not in flag and flag not in ENDS]
        for argv in ([], *([f"--{flag}"] for flag in flags)):
            if command.arguments.needed():
                refusal(exchange.main, [name, *argv])
