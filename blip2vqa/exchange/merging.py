"""Merge adapters of one base into one that adds the weighted sum of what they add; reduce an adapter's rank."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch

from blip2vqa.adapters.algebra import Deltas, derive, largest_rank, read_deltas, whole_modules, write_adapter
from blip2vqa.adapters.base.fingerprints import compare_parts
from blip2vqa.adapters.files.adapter import Adapter, check_output
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.manifest_schema import USES
from blip2vqa.config.exchange import MergeArguments, ResizeArguments
from blip2vqa.exchange.merge_methods import Errors, approximate, concatenate, dare, reduce_rank, ties
from blip2vqa.models.families import family_named
from blip2vqa.models.places import part_of, scopes_and_roles
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

Weighted = Sequence[tuple[Adapter, float]]


def merge(adapters: Mapping[str, float] | Iterable[str], output: str | Path, **options) -> dict:
    """Merge adapters into a new one at `output`; return a report, ready for JSON.

    `adapters`: `{ADAPTER: weight}` or `["ADAPTER=WEIGHT", …]`; ADAPTER is a folder, a name in the store, or a Hub id. Prompt,
    decoding and whatever else there can be one of are those of the first. `options`: see `merge_deltas`. Raises `InputError`,
    with every problem found.
    """
    weights = adapters if isinstance(adapters, Mapping) else _parse_weights(adapters)
    output, problems = Path(output), MergeArguments(**options).check()
    collect_errors(problems, check_output, output)
    opened = [collect_errors(problems, open_adapter, name) for name in weights]
    if len(weights) < 2:
        problems.append("merge: takes two adapters at least, as A=0.7 B=0.3")
    raise_all(problems)
    weighted = list(zip(opened, weights.values(), strict=True))
    made, report = merge_deltas(weighted, **options)
    return _write(output, made, opened[0], "merge", report, _merge_whole(weighted))


def resize(adapter: str, output: str | Path, *, rank: int | None = None, energy: float | None = None) -> dict:
    """Write an adapter in a smaller rank to `output`; return a report, ready for JSON. Otherwise as `resize_deltas`."""
    output, problems = Path(output), ResizeArguments(rank=rank, energy=energy).check()
    collect_errors(problems, check_output, output)
    opened = collect_errors(problems, open_adapter, adapter)
    raise_all(problems)
    made, report = resize_deltas(opened, rank=rank, energy=energy)
    return _write(output, made, opened, "resize", report, whole_modules(opened))


def merge_deltas(adapters: Weighted, **options) -> tuple[Deltas, dict]:
    """Compute Σ weight · ΔW of adapters of one base; return (deltas, report).

    Ranks, scalings and roles may differ; where only some of the adapters adapt a module, the sum there is of these alone.
    `options` are those of `MergeArguments`; `merge_methods` says what the methods do. Raises `InputError` for adapters of
    different bases, ones that are more than a sum of ΔW, and arguments out of range.
    """
    args = MergeArguments(**options)
    raise_all(args.check())
    for adapter, weight in adapters:
        if not math.isfinite(weight) or weight == 0:
            raise InputError(f"merge: {adapter.name} has the weight {weight:g}; take a number other than 0")
    notes = check_together([adapter for adapter, _ in adapters])
    problems: list[str] = []
    read = [collect_errors(problems, read_deltas, adapter) for adapter, _ in adapters]
    raise_all(problems)
    parts = {  # by name, so that what is drawn at random does not depend on the order in a file
        module: [
            (deltas[module], weight) for deltas, (_, weight) in zip(read, adapters, strict=True) if module in deltas
        ]
        for module in sorted({module for deltas in read for module in deltas})
    }
    for module, pairs in parts.items():
        shapes = sorted({factors.shape for factors, _ in pairs})
        if len(shapes) > 1:
            shown = " and ".join(map(str, shapes))
            raise InputError(f"merge: {module} has shapes {shown}: the adapters were made for different bases")
    used = {"ties": {"density": args.density}, "dare": {"drop": args.drop, "seed": args.seed}}.get(args.method, {})
    if used:
        dense = ties(parts, **used) if args.method == "ties" else dare(parts, **used)
        made, errors = approximate(dense, parts, args.rank, args.seed)
    else:
        made, errors = concatenate(parts)
        if args.method == "linear":
            made, errors = reduce_rank(made, args.rank, args.energy)
    return made, {"method": args.method, **_report(adapters, read, made, errors, used, notes)}


def resize_deltas(adapter: Adapter, *, rank: int | None = None, energy: float | None = None) -> tuple[Deltas, dict]:
    """Compute the best approximation of ΔW of a rank, or of the smallest that keeps `energy` of Σσ²; return (deltas, report).

    Raises `InputError` for an adapter that is more than a sum of ΔW, and arguments out of range.
    """
    raise_all(ResizeArguments(rank=rank, energy=energy).check())
    before = read_deltas(adapter)
    made, errors = reduce_rank(before, rank, energy)
    own, notes = largest_rank(before), []
    if rank is not None and rank > own:
        notes.append(f"--rank {rank}: it has rank {own}, and keeps it")
    return made, _report([(adapter, 1.0)], [before], made, errors, {}, notes)


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


def _write(output: Path, made: Deltas, first: Adapter, command: str, report: dict, whole: dict) -> dict:
    """Write the adapter that `command` has made; return the report with its folder. `whole`: its weights beside the deltas."""
    scopes, roles = scopes_and_roles(list(made), family_named(first.manifest.get("family"), list(made)))
    rank = largest_rank(made)
    manifest = derive(
        first.facts, {"command": command, **report}, rank=rank, alpha=rank, scopes=scopes, roles=roles,
        base_model_id=first.base_model_id, base_model_revision=first.base_model_revision,
    )  # fmt: skip
    write_adapter(output, made, like=first, manifest=manifest, whole=whole)
    return {"output": str(output), **report}


def _report(
    adapters: Weighted, before: list[Deltas], made: Deltas, errors: Errors, used: dict, notes: list[str]
) -> dict:
    """Report on a merge or a resizing; `used`: options of the method."""
    lost, total = (reduce(math.hypot, column) for column in zip(*errors.values(), strict=True))
    error = lost / total if total else 0.0
    worst, module = max((part / whole if whole else 0.0, module) for module, (part, whole) in errors.items())
    return {
        "of": [{"name": adapter.name, "sha256": adapter.digest, "weight": weight} for adapter, weight in adapters],
        "rank_before": [largest_rank(deltas) for deltas in before],
        **used,
        "rank": largest_rank(made),
        "modules": len(made),
        "energy_kept": max(0.0, 1 - error**2),
        "relative_error": error,
        "worst_module": {"name": module, "relative_error": worst},
        "notes": notes,
    }


def check_together(adapters: Sequence[Adapter]) -> list[str]:
    """Raise `InputError` unless all adapters were made for one base; return notes on what else differs between them."""
    first, problems, notes = adapters[0], [], []
    for other in adapters[1:]:
        pair = f"adapters {first.name} and {other.name}"
        family, theirs = (family_named(one.manifest.get("family"), list(one.modules)) for one in (first, other))
        whole = ((first, family), (other, theirs))
        bare = [one.name for one, f in whole if not any(f and f.scope_of(name) for name in one.modules)]
        if len(bare) == 1:
            problems.append(
                f"{pair}: {bare[0]} is of a bare language model, whose layers have other names; transfer it first"
            )
            continue
        parts = {part_of(name, family) for name in {*first.modules, *other.modules}}
        bases = [one.manifest.get("base") for one in (first, other)]
        known = compare_parts(*bases) if all(bases) else {}
        unlike = sorted(part for part in parts if known.get(part) == "different")
        unknown = sorted(part for part in parts if known.get(part, "unknown") == "unknown")
        ids = [one.base_model_id for one in (first, other)]
        if unlike:
            problems.append(
                f"{pair}: made for different weights of the base ({', '.join(unlike)}, by fingerprint): a sum of what they add "
                "means nothing; transfer one to the other's base first"
            )
        elif unknown and None not in ids and ids[0] != ids[1]:
            problems.append(f"{pair}: made for {ids[0]} and {ids[1]}, and no fingerprint says that these are the same")
        elif unknown and None in ids:
            notes.append(f"{pair}: one does not say what its base is; taken for the same because the shapes agree")
        notes += [
            f"{key}: {other.name} has {_short(other.manifest[key])}, the merged one {_short(first.manifest[key])}"
            for key, use in USES.items()
            if use.asks
            and key in first.manifest
            and key in other.manifest
            and first.manifest[key] != other.manifest[key]
        ]
    raise_all(problems)
    return notes


def _short(value: object) -> str:
    text = f"{len(value)} of them" if isinstance(value, list) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _merge_whole(adapters: Weighted) -> dict[str, torch.Tensor]:
    """Average what adapters hold in place of the base's weights, such as heads, by shares that add up to 1."""
    whole = [whole_modules(adapter) for adapter, _ in adapters]
    if not any(whole):
        return {}
    first, total = adapters[0][0], sum(weight for _, weight in adapters)
    for (adapter, _), held in zip(adapters, whole, strict=True):
        pair = f"adapters {first.name} and {adapter.name}"
        if adapter.answers != first.answers:
            raise InputError(
                f"{pair}: their heads are not for the same answers in the same order, so there is no mean of them; train them "
                "on one list of answers"
            )
        if unlike := sorted(held.keys() ^ whole[0].keys()):
            raise InputError(
                f"{pair}: one alone holds weights in place of the base's ({unlike[0]}, {len(unlike)} in all), so there is no "
                "mean of them; merge adapters that both do, or neither"
            )
        if unlike := sorted(name for name, tensor in held.items() if tensor.shape != whole[0][name].shape):
            raise InputError(
                f"{pair}: {unlike[0]}, which stands in place of the base's, is {list(whole[0][unlike[0]].shape)} in one and "
                f"{list(held[unlike[0]].shape)} in the other, so there is no mean of them; train them on one base"
            )
    if total <= 0:
        raise InputError(f"merge: the weights add up to {total:g}, and there is no mean of the heads by these")
    return {
        name: sum(held[name].float() * (weight / total) for held, (_, weight) in zip(whole, adapters, strict=True))
        for name in whole[0]
    }
