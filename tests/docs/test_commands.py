"""Every command of README and docs is read by the parser that would read it, and every flag they mention exists."""

import re
from dataclasses import fields

import pytest
from accelerate.commands.launch import launch_command_parser

from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.demo import DemoArguments
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.generate import VQA_ARGUMENTS
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.parser import parse, parse_command
from blip2vqa.config.report import ReportArguments
from blip2vqa.exchange.commands import COMMANDS
from helpers.doc_pages import PAGES, SCRIPTS, commands, page_name, prose, spans, words_of
from helpers.paths import ROOT

ARGUMENTS = {
    "finetune.py": FINETUNE_ARGUMENTS, "inference.py": [InferenceArguments], "caption.py": [CaptionArguments],
    "generate_vqa.py": VQA_ARGUMENTS, "demo.py": [DemoArguments],
}  # fmt: skip
EXCHANGE = {name: command.arguments for name, command in COMMANDS.items()}
# Configurations that a reader writes, or has from an earlier run.
OWN_CONFIGURATIONS = ("CONFIG.json", "OUT/run.json", "vqa.run.json")
OTHER_TOOLS = ("pip", "pytest", "ruff", "bash", "export", "vllm")
# Flags that no dataclass declares: of every command, mistakes whose message is timed, and vLLM's --chat-template.
OTHER_FLAGS = {"help", "version", "lerning_rate", "bacth_size", "chat"}
LAUNCHER_FLAGS = {flag for action in launch_command_parser()._actions for flag in action.option_strings}


def all_commands() -> list:
    """Each command with the page it stands on, once a page."""
    return [
        pytest.param(command, id=f"{page_name(page)}: {command[:70]}")
        for page in PAGES
        for command in dict.fromkeys(commands(page))
    ]


def split_launcher(words: list[str]) -> list[str]:
    """`SCRIPT ARGUMENT …` of a command; the launcher's own words are read by its own parser."""
    if words[:2] == ["accelerate", "launch"]:
        launched = launch_command_parser().parse_args(words[2:])
        return [launched.training_script, *launched.training_script_args]
    if words[0] == "blip2vqa":
        rest = words[2:]
        while rest and rest[0] in LAUNCHER_FLAGS:
            rest = rest[2:]
        return [SCRIPTS[words[1]], *rest]
    assert words[0] == "python"
    return words[1:]


@pytest.mark.parametrize("command", all_commands())
def test_command_parses(command, monkeypatch, write):
    monkeypatch.chdir(ROOT)
    own = write("own.json", "{}")
    words = [
        own if word in OWN_CONFIGURATIONS else word.replace("STYLE.json", "concise.json") for word in words_of(command)
    ]
    if words[0] in OTHER_TOOLS:
        named = [word for word in words if word.startswith("requirements") or word.startswith(".ci/")]
        assert all((ROOT / name).is_file() for name in named)
        return
    script, *rest = split_launcher(words)
    assert (ROOT / script).is_file()
    if script in ARGUMENTS:
        parse(ARGUMENTS[script], "test", for_a_cpu(rest) if script == "finetune.py" else rest)
    elif script == "report.py":
        if rest:
            parse_command("report", ReportArguments, rest)
    elif script == "exchange.py":
        if rest and rest[0] != "COMMAND":
            parse_command(rest[0], EXCHANGE[rest[0]], rest[1:])
    else:  # benchmarks and assets declare their flags in the script itself, or in a module beside it
        known = "".join(path.read_text() for path in (ROOT / script).parent.glob("*.py"))
        assert [word for word in rest if word.startswith("--") and f'"{word}"' not in known] == []


def for_a_cpu(argv: list[str]) -> list[str]:
    """finetune.py's arguments as a machine without a GPU and without a launcher's process group takes them."""
    argv = [word for word in argv if word not in ("--ddp_backend", "gloo")]
    return argv if "--use_cpu" in argv else [*argv, "--use_cpu"]


def names(part: type) -> set[str]:
    """Every spelling of every option of a dataclass."""
    aliases = {alias.lstrip("-") for field in fields(part) for alias in field.metadata.get("aliases", ())}
    return {field.name for field in fields(part)} | aliases


def test_every_flag_that_a_page_mentions_exists():
    parts = [*(part for parts in ARGUMENTS.values() for part in parts), *EXCHANGE.values(), ReportArguments]
    known = OTHER_FLAGS.union({flag.lstrip("-") for flag in LAUNCHER_FLAGS}, *map(names, parts))
    tools = [path.read_text() for folder in ("benchmarks", "assets") for path in (ROOT / folder).glob("*.py")]
    known |= {flag for text in tools for flag in re.findall(r'"--(\w+)"', text)}
    mentioned = {
        (page_name(page), flag)
        for page in PAGES
        for span in spans(page)
        for flag in re.findall(r"--([A-Za-z]\w+)", span)
    }
    assert {(page, flag) for page, flag in mentioned if flag not in known} == set()


def test_every_exchange_command_is_documented():
    page = ROOT / "docs" / "exchange.md"
    shown = {words_of(command)[2] for command in commands(page) if "exchange.py " in command}
    assert set(EXCHANGE) <= shown


def test_both_forms_of_every_command_are_named():
    said = prose(ROOT / "README.md")
    for command, script in SCRIPTS.items():
        assert f"`blip2vqa {command}`" in said and f"`python {script}`" in said
