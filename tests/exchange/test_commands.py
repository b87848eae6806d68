"""The table of commands: each has a function that takes its options, is offered in Python, and needs no torch to be listed."""

import inspect
import subprocess
import sys

import pytest

import blip2vqa.exchange
from blip2vqa.exchange.commands import COMMANDS, overview
from helpers.paths import ROOT

NAMES = (
    "list_store", "inspect", "check", "add", "remove", "export", "import_adapter", "merge", "resize", "extract", "fuse",
    "transfer", "swap", "push", "pull",
)  # fmt: skip


def test_every_command_is_a_function_of_python():
    assert [command.name for command in COMMANDS.values()] == [*NAMES]
    assert all(getattr(blip2vqa.exchange, name).__name__ == name for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        blip2vqa.exchange.nothing  # noqa: B018


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_a_parameter_of_the_function(name):
    command = COMMANDS[name]
    options = {command.renamed.get(option, option): None for option in vars(command.arguments()) if option != "json"}
    inspect.signature(command.function).bind(**options)


def test_the_overview_has_a_line_for_each():
    lines = overview().splitlines()
    assert [line.split()[0] for line in lines] == [*COMMANDS]


def test_the_table_and_a_list_need_no_torch(tmp_path):
    code = (
        "import sys; from blip2vqa.exchange.commands import COMMANDS, overview; overview(); "
        "from blip2vqa.exchange import list_store, remove; print(list_store(sys.argv[1])); "
        "assert not {'torch', 'peft', 'transformers', 'pandas'} & sys.modules.keys()"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr
