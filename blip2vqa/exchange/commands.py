"""The commands of exchange.py, in one table: parsers, help, results, exit codes and the Python functions are drawn from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from blip2vqa.config import exchange as arguments
from blip2vqa.reporting.exchange import print_check, print_move, print_moves, print_store, print_written
from blip2vqa.reporting.norms import print_inspection

EXIT_CODES = {"ok": 0, "convertible": 3, "incompatible": 1}
"""Exit code of `check`, by its verdict."""


@dataclass(frozen=True)
class Command:
    """One command of exchange.py."""

    arguments: type
    """Dataclass of its options; the first line of its docstring says what the command does."""
    module: str
    """Where its function is, below `blip2vqa`; imported when it is called, since most bring in torch."""
    name: str
    """Of the function: what `from blip2vqa.exchange import …` gives."""
    usage: str
    """What stands behind the command in the overview."""
    show: Callable[[Any], None] = print
    """Prints the function's result for a person."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Option → parameter of the function, where their names differ."""
    exit_code: Callable[[Any], int] = lambda result: 0

    @property
    def function(self) -> Callable:
        """Takes names and paths, and returns what can be written as JSON."""
        return getattr(import_module(f"blip2vqa.{self.module}"), self.name)

    def run(self, args: Any) -> Any:
        """Call the function with an instance of `arguments`; return its result."""
        given = {self.renamed.get(name, name): value for name, value in vars(args).items() if name != "json"}
        return self.function(**given)


COMMANDS = {
    "list": Command(arguments.ListArguments, "adapters.storage.local", "list_store", "[STORE]", print_store),
    "inspect": Command(
        arguments.InspectArguments, "exchange.inspecting", "inspect", "ADAPTER [--plot NORMS.png]", print_inspection
    ),
    "check": Command(
        arguments.CheckArguments, "exchange.checking", "check", "ADAPTER BASE", print_check,
        {"base_model_revision": "revision"}, lambda result: EXIT_CODES[result["verdict"]],
    ),
    "add": Command(arguments.AddArguments, "exchange.publishing", "add", "ADAPTER [--name NAME]"),
    "remove": Command(
        arguments.RemoveArguments, "adapters.storage.local", "remove", "NAME", lambda result: print("Removed")
    ),
    "export": Command(arguments.ExportArguments, "exchange.publishing", "export", "ADAPTER [--output FILE.zip]"),
    "import": Command(
        arguments.ImportArguments, "adapters.storage.archive", "import_adapter", "FILE.zip [--name NAME]",
    ),
    "merge": Command(
        arguments.MergeArguments, "exchange.merging", "merge", "A=0.7 B=0.3 --output C", print_written
    ),
    "resize": Command(
        arguments.ResizeArguments, "exchange.merging", "resize", "ADAPTER --rank 8 --output B", print_written
    ),
    "extract": Command(
        arguments.ExtractArguments, "exchange.extracting", "extract", "BASE TUNED --rank 16 --output A", print_written,
        {"base_revision": "revision"},
    ),
    "fuse": Command(arguments.FuseArguments, "exchange.fusing", "fuse", "ADAPTER --output MODEL", print_written),
    "transfer": Command(
        arguments.TransferArguments, "exchange.transferring", "transfer", "ADAPTER TARGET_BASE --output B", print_move
    ),
    "swap": Command(arguments.SwapArguments, "exchange.transferring", "swap", "A B --output FOLDER", print_moves),
    "push": Command(
        arguments.PushArguments, "exchange.publishing", "push", "ADAPTER USER/NAME [--private false]",
        renamed={"license": "licence"},
    ),
    "pull": Command(
        arguments.PullArguments, "exchange.publishing", "pull", "USER/NAME[@REVISION]",
        renamed={"adapter": "name", "name": "as_name"},
    ),
}  # fmt: skip


def overview() -> str:
    """List the commands, one line each."""
    lines = [(f"{name} {command.usage}", command) for name, command in COMMANDS.items()]
    width = max(len(usage) for usage, _ in lines)
    return "\n".join(f"    {usage:<{width}}  {command.arguments.__doc__.splitlines()[0]}" for usage, command in lines)
