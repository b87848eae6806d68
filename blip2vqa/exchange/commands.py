"""The commands of exchange.py, each a function that takes names and paths and returns what can be written as JSON.

Each brings in what it needs when it is called: to list a store takes no model code, whose import takes seconds.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from blip2vqa.utils.errors import InputError


def list_store(store: str | None = None) -> list[dict]:
    """Adapters in a store: name, task, base, rank, roles, score, size, date."""
    from blip2vqa.adapters.storage import local

    return local.list_store(store)


def inspect(adapter: str, plot: str | None = None) -> dict:
    """Manifest, layers, shapes, norms of ΔW by layer and role, untrained parts; `plot`: a PNG of the norms to write."""
    from blip2vqa.adapters.files.adapter import open_adapter
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
    """Whether an adapter fits a base: `verdict` (ok, convertible, incompatible), `reasons`, `move`, `parts`."""
    from blip2vqa.exchange import checking

    return checking.check(adapter, base_model_id, revision, quick=quick).as_json()


def add(adapter: str, name: str | None = None, store: str | None = None, *, convert_pickle: bool = False) -> Path:
    """Copy an adapter into the store; where it lies now."""
    from blip2vqa.adapters.storage import local

    return local.add(adapter, name, store, convert_pickle=convert_pickle)


def remove(name: str, store: str | None = None) -> None:
    """Delete an adapter of the store."""
    from blip2vqa.adapters.storage import local

    local.remove(name, store)


def export(adapter: str, output: str | None = None) -> Path:
    """Write an adapter as one file with checksums; default: NAME.zip here."""
    from blip2vqa.adapters.files.adapter import open_adapter
    from blip2vqa.adapters.storage import archive

    opened = open_adapter(adapter)
    return archive.export(opened, Path(output or f"{Path(opened.name).resolve().name}.zip"))


def import_adapter(path: str, name: str | None = None, store: str | None = None) -> Path:
    """Put an adapter that `export` wrote into the store; where it lies now."""
    from blip2vqa.adapters.storage import archive

    return archive.import_adapter(Path(path), name, store)


def merge(adapters: Mapping[str, float], output: str, **options) -> dict:
    """Write the weighted sum of adapters, `{adapter: weight}`; `options` are those of `MergeArguments`."""
    from blip2vqa.exchange import merging

    return merging.merge_adapters(adapters, Path(output), **options)


def resize(adapter: str, output: str, *, rank: int | None = None, energy: float | None = None) -> dict:
    """Write the best approximation of an adapter of that rank, or of the least rank that keeps that share of its energy."""
    from blip2vqa.exchange import merging

    return merging.resize_adapter(adapter, Path(output), rank=rank, energy=energy)


def extract(base: str, tuned: str, output: str, **options) -> dict:
    """Write an adapter of the difference of two checkpoints; `options`: rank, revision, tuned_revision."""
    from blip2vqa.exchange import extracting

    return extracting.extract(base, tuned, Path(output), **options)


def fuse(adapter: str, output: str, base_model_id: str | None = None) -> dict:
    """Write the base with the adapter in its weights."""
    from blip2vqa.adapters.attach import find_adapter
    from blip2vqa.adapters.files.adapter import open_adapter
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
    """Try each of two adapters on the other's base; `options` and result: see `blip2vqa.exchange.transferring.swap`."""
    from blip2vqa.exchange import transferring

    return transferring.swap(first, second, output, **options)


def push(adapter: str, hub_model_id: str, **options) -> str:
    """Publish an adapter; `options`: private, token, licence, base_model_id. Returns its address."""
    from blip2vqa.adapters.files.adapter import open_adapter
    from blip2vqa.adapters.storage import hub

    return hub.push(open_adapter(adapter), hub_model_id, **options)


def pull(name: str, as_name: str | None = None, store: str | None = None) -> Path:
    """Fetch an adapter, `USER/NAME[@REVISION]`, into the store; where it lies now."""
    from blip2vqa.adapters.storage import hub

    name, _, revision = name.partition("@")
    return hub.pull(name, revision or None, as_name=as_name, store=store)


def parse_weights(given: list[str]) -> dict[str, float]:
    """`["A=0.7", "B"]` → `{"A": 0.7, "B": 1.0}`. Raises `InputError`."""
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


def run(command: str, args):
    """Carry out a command with its arguments, of `exchange_arguments.COMMANDS`; what its function returns."""
    match command:
        case "list":
            return list_store(args.store)
        case "inspect":
            return inspect(args.adapter, args.plot)
        case "check":
            return check(args.adapter, args.base_model_id, args.base_model_revision, quick=args.quick)
        case "add":
            return add(args.adapter, args.name, args.store, convert_pickle=args.convert_pickle)
        case "remove":
            return remove(args.name, args.store)
        case "export":
            return export(args.adapter, args.output)
        case "import":
            return import_adapter(args.archive, args.name, args.store)
        case "merge":
            names = ("method", "rank", "energy", "density", "drop", "seed")
            return merge(parse_weights(args.adapters), args.output, **{name: getattr(args, name) for name in names})
        case "resize":
            return resize(args.adapter, args.output, rank=args.rank, energy=args.energy)
        case "extract":
            revisions = {"revision": args.base_revision, "tuned_revision": args.tuned_revision}
            return extract(args.base, args.tuned, args.output, rank=args.rank, **revisions)
        case "fuse":
            return fuse(args.adapter, args.output, args.base_model_id)
        case "transfer" | "swap":
            given = {name: value for name, value in vars(args).items() if name != "json"}
            return (transfer if command == "transfer" else swap)(**given)
        case "push":
            options = {"private": args.private, "licence": args.license, "base_model_id": args.base_model_id}
            return push(args.adapter, args.hub_model_id, **options)
        case "pull":
            return pull(args.adapter, args.name, args.store)
