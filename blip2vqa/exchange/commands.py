"""The commands of exchange.py: one table of them, and each as a function of names and paths whose result is plain JSON data.

Each function imports what it needs when it is called: listing a store needs no model code, whose import takes seconds.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blip2vqa.config import exchange as arguments
from blip2vqa.reporting import exchange as reports
from blip2vqa.reporting.norms import print_inspection
from blip2vqa.utils.errors import InputError

EXIT_CODES = {"ok": 0, "convertible": 3, "incompatible": 1}
"""Exit code of `check`, by its verdict."""


def list_store(store: str | None = None) -> list[dict]:
    """List the adapters in a store: name, task, base, rank, roles, score, size, date."""
    from blip2vqa.adapters.storage import local

    return local.list_store(store)


def inspect(adapter: str, plot: str | None = None) -> dict:
    """Read an adapter's manifest, layers, shapes, norms of ΔW by layer and role, and untrained parts.

    `plot`: PNG file to draw the norms into. The result is that of `blip2vqa.exchange.inspecting.inspect`.
    """
    from blip2vqa.adapters.resolve import open_adapter
    from blip2vqa.exchange import inspecting

    report = inspecting.inspect(open_adapter(adapter))
    if plot:
        from blip2vqa.reporting.norms import draw_norms
        from blip2vqa.utils.files import write_bytes_atomic

        try:
            write_bytes_atomic(plot, draw_norms(report))
        except OSError as error:
            raise InputError(f"--plot {plot}: cannot be written: {error.strerror or error}") from error
    return report


def check(adapter: str, base_model_id: str, revision: str | None = None, *, quick: bool = False) -> dict:
    """Tell whether an adapter fits a base: `verdict` (ok, convertible, incompatible), `reasons`, `move`, `parts`.

    `quick`: do not run the model.
    """
    from blip2vqa.exchange import checking

    return checking.check(adapter, base_model_id, revision, quick=quick).as_json()


def add(adapter: str, name: str | None = None, store: str | None = None, *, convert_pickle: bool = False) -> Path:
    """Copy an adapter into the store; return its folder there."""
    from blip2vqa.adapters.resolve import locate
    from blip2vqa.adapters.storage import local

    found = locate(adapter)
    return local.add(found.folder, name, store, convert_pickle=convert_pickle, called=found.name)


def remove(name: str, store: str | None = None) -> None:
    """Delete an adapter from the store."""
    from blip2vqa.adapters.storage import local

    local.remove(name, store)


def export(adapter: str, output: str | None = None) -> Path:
    """Write an adapter as one file with checksums, by default NAME.zip in the current folder; return the file."""
    from blip2vqa.adapters.resolve import open_adapter
    from blip2vqa.adapters.storage import archive

    opened = open_adapter(adapter)
    return archive.export(opened, Path(output or f"{Path(opened.name).resolve().name}.zip"))


def import_adapter(path: str, name: str | None = None, store: str | None = None) -> Path:
    """Put an adapter that `export` wrote into the store; return its folder there."""
    from blip2vqa.adapters.storage import archive

    return archive.import_adapter(Path(path), name, store)


def merge(adapters: Mapping[str, float] | Iterable[str], output: str, **options) -> dict:
    """Write the weighted sum of adapters, `{adapter: weight}` or `["ADAPTER=WEIGHT", …]`.

    `options` are those of `MergeArguments`.
    """
    from blip2vqa.exchange import merging

    weights = adapters if isinstance(adapters, Mapping) else _parse_weights(adapters)
    return merging.merge_adapters(weights, Path(output), **options)


def resize(adapter: str, output: str, *, rank: int | None = None, energy: float | None = None) -> dict:
    """Write the best approximation of an adapter of that rank, or of the least rank that keeps that share of its energy."""
    from blip2vqa.exchange import merging

    return merging.resize_adapter(adapter, Path(output), rank=rank, energy=energy)


def extract(base: str, tuned: str, output: str, **options) -> dict:
    """Write the difference of two checkpoints as an adapter; `options`: rank, revision, tuned_revision."""
    from blip2vqa.exchange import extracting

    return extracting.extract(base, tuned, Path(output), **options)


def fuse(adapter: str, output: str, base_model_id: str | None = None) -> dict:
    """Write the base with the adapter in its weights."""
    from blip2vqa.adapters.attach import find_adapter
    from blip2vqa.adapters.resolve import open_adapter
    from blip2vqa.exchange import fusing

    opened = open_adapter(adapter)
    if base_model_id:
        find_adapter(adapter, base_model_id=base_model_id)  # says what is wrong with another base
    return fusing.fuse(opened, Path(output), base_model_id)


def transfer(adapter: str, target: str, output: str, **options) -> dict:
    """Move an adapter to another base; `options` and result: see `blip2vqa.exchange.transferring.transfer`."""
    from blip2vqa.exchange import transferring

    return transferring.transfer(adapter, target, output, **options)


def swap(first: str, second: str, output: str, **options) -> dict:
    """Move each of two adapters to the other's base; `options` and result: see `blip2vqa.exchange.transferring.swap`."""
    from blip2vqa.exchange import transferring

    return transferring.swap(first, second, output, **options)


def push(adapter: str, hub_model_id: str, **options) -> str:
    """Publish an adapter on the Hub; `options`: private, token, licence, base_model_id. Return its address."""
    from blip2vqa.adapters.resolve import open_adapter
    from blip2vqa.adapters.storage import hub

    return hub.push(open_adapter(adapter), hub_model_id, **options)


def pull(name: str, as_name: str | None = None, store: str | None = None) -> Path:
    """Fetch an adapter, USER/NAME or USER/NAME@REVISION, into the store; return its folder there.

    A pull that fails leaves the store as it was.
    """
    from blip2vqa.adapters.storage import hub, local

    name, _, revision = name.partition("@")
    return local.add(hub.fetch_adapter(name, revision or None), as_name, store, called=name)


def _parse_weights(given: Iterable[str]) -> dict[str, float]:
    """Read `["A=0.7", "B"]` as `{"A": 0.7, "B": 1.0}`. Raises `InputError`."""
    weights: dict[str, float] = {}
    for item in given:
        name, sign, number = item.rpartition("=")
        if not sign:
            name, number = item, "1"
        if not name or not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", number):
            raise InputError(f"{item}: is ADAPTER=WEIGHT, as in runs/count=0.7")
        if name in weights:
            raise InputError(f"{name}: is given twice; add up its weights")
        weights[name] = float(number)
    return weights


@dataclass(frozen=True)
class Command:
    """One command of exchange.py."""

    arguments: type
    """Dataclass of its options; the first line of its docstring says what the command does."""
    function: Callable
    show: Callable[[Any], None] = print
    """Prints the function's result for a person."""
    usage: str = ""
    """What stands behind the command in the overview."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Option → parameter of the function, where their names differ."""
    exit_code: Callable[[Any], int] = lambda result: 0

    def run(self, args: Any) -> Any:
        """Call the function with an instance of `arguments`; return its result."""
        given = {self.renamed.get(name, name): value for name, value in vars(args).items() if name != "json"}
        return self.function(**given)


COMMANDS = {
    "list": Command(arguments.ListArguments, list_store, reports.print_store, "[STORE]"),
    "inspect": Command(arguments.InspectArguments, inspect, print_inspection, "ADAPTER [--plot NORMS.png]"),
    "check": Command(
        arguments.CheckArguments,
        check,
        reports.print_check,
        "ADAPTER BASE",
        {"base_model_revision": "revision"},
        lambda result: EXIT_CODES[result["verdict"]],
    ),
    "add": Command(arguments.AddArguments, add, usage="ADAPTER [--name NAME]"),
    "remove": Command(arguments.RemoveArguments, remove, lambda result: print("Removed"), "NAME"),
    "export": Command(arguments.ExportArguments, export, usage="ADAPTER [--output FILE.zip]"),
    "import": Command(arguments.ImportArguments, import_adapter, usage="FILE.zip", renamed={"archive": "path"}),
    "merge": Command(arguments.MergeArguments, merge, reports.print_written, "A=0.7 B=0.3 --output C"),
    "resize": Command(arguments.ResizeArguments, resize, reports.print_written, "ADAPTER --rank 8 --output B"),
    "extract": Command(
        arguments.ExtractArguments,
        extract,
        reports.print_written,
        "BASE TUNED --rank 16 --output A",
        {"base_revision": "revision"},
    ),
    "fuse": Command(arguments.FuseArguments, fuse, reports.print_written, "ADAPTER --output MODEL"),
    "transfer": Command(arguments.TransferArguments, transfer, reports.print_move, "ADAPTER TARGET_BASE --output B"),
    "swap": Command(arguments.SwapArguments, swap, reports.print_moves, "A B --output FOLDER"),
    "push": Command(arguments.PushArguments, push, usage="ADAPTER USER/NAME", renamed={"license": "licence"}),
    "pull": Command(
        arguments.PullArguments, pull, usage="USER/NAME[@REVISION]", renamed={"adapter": "name", "name": "as_name"}
    ),
}
"""Every command by its name; parsers, help, results and exit codes are drawn from this table."""


def overview() -> str:
    """List the commands, one line each."""
    lines = [(f"python exchange.py {name} {command.usage}", command) for name, command in COMMANDS.items()]
    width = max(len(usage) for usage, _ in lines)
    return "\n".join(f"    {usage:<{width}}  {command.arguments.__doc__.splitlines()[0]}" for usage, command in lines)
