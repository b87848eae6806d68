"""--help is grouped, short and complete; `--help all` has everything."""

import pytest

from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.generate import VQA_ARGUMENTS
from blip2vqa.config.help import format_help, option_groups
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.parser import parse
from blip2vqa.config.training import FINETUNE_OPTIONS
from blip2vqa.exchange.commands import COMMANDS
from blip2vqa.utils.errors import InputError

SCRIPTS = {
    "finetune": FINETUNE_OPTIONS,
    "infer": [InferenceArguments, FeatureArguments],
    "caption": [CaptionArguments, FeatureArguments],
    "generate": VQA_ARGUMENTS,
} | {name: [command.arguments] for name, command in COMMANDS.items()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_one_line_an_option_on_two_screens(name):
    groups = option_groups(SCRIPTS[name])
    options = [field for group in groups.values() for field in group]
    lines = format_help("program", "what it does", SCRIPTS[name], everything=False).splitlines()
    assert len(lines) <= 92 and max(map(len, lines)) <= 100  # with the description: two screens of 55 lines
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    assert shown == [f"--{field.name}" for field in options]
    assert len(lines) == len(options) + 5 + 2 * len(groups)  # no option takes two
    assert not [alias for field in options for alias in field.metadata["aliases"] if alias in shown]
    for field in options:
        (line,) = [line for line in lines if line.split()[:1] == [f"--{field.name}"]]
        plain = [field.default] if isinstance(field.default, int | float) else []
        assert all(line.endswith(f"[{str(value).lower()}]") for value in plain)


def test_defaults_that_depend_are_shown_as_they_are_told():
    lines = format_help("program", "", [InferenceArguments], everything=False).splitlines()
    (line,) = [line for line in lines if line.startswith("  --num_beams")]
    assert line.endswith("[the adapter's own, else 1]")


def test_help_all_has_trainers_options_and_every_word():
    text = format_help("program", "", FINETUNE_ARGUMENTS, everything=True)
    assert "\nTrainer:\n" in text and "--gradient_accumulation_steps" in text and "\n  --lora_r" in text
    assert text.index("--lora_r") < text.index("Trainer:") < text.index("--max_steps")
    flat = " ".join(text.split())
    for part in FINETUNE_OPTIONS:
        for field in part.__dataclass_fields__.values():
            assert " ".join(field.metadata["help"].split()).replace("%%", "%") in flat
    assert text.count("  --per_device_train_batch_size") == 1


@pytest.mark.parametrize(
    ("argv", "expected"),
    [(["--help"], "num_beams"), (["-h"], "num_beams"), (["--help", "all"], "likeliest"), (["--version"], "blip2vqa 0")],
)
def test_the_parser_prints_them_and_ends_well(argv, expected, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(SCRIPTS["infer"], "what it does", argv, usage="program")
    assert ended.value.code == 0 and expected in capsys.readouterr().out


def test_help_takes_one_word():
    with pytest.raises(InputError, match="--help al: takes nothing, or all"):
        parse(SCRIPTS["infer"], "", ["--help", "al"])
