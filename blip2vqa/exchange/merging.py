"""Several adapters of one base → one that adds the weighted sum of what they add; and adapters of a smaller rank."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from blip2vqa.adapters.algebra import Deltas, derive, read_deltas, whole_modules, write_adapter
from blip2vqa.adapters.base.fingerprints import compare_parts
from blip2vqa.adapters.files.adapter import Adapter, check_output, open_adapter
from blip2vqa.config.exchange import MergeArguments, ResizeArguments
from blip2vqa.exchange.inspecting import family_named, scopes_and_roles
from blip2vqa.exchange.merge_methods import Error, Parts, approximate, concatenate, dare, reduce_rank, ties
from blip2vqa.utils.errors import InputError, collect_errors, raise_all

Weighted = Sequence[tuple[Adapter, float]]

_PARTS = {"projection": "projection", "qformer": "qformer", "vision": "vision_model"}
"""Scope → part of the base that has a fingerprint; the language model's otherwise."""
_ONE_ANSWER = ("task", "prompt", "decoding", "style", "answers", "end_token")
"""Of the manifests, what a merged adapter has one of."""


def merge(
    adapters: Weighted,
    *,
    method: str = "linear",
    rank: int | None = None,
    energy: float | None = None,
    density: float = 0.2,
    drop: float = 0.9,
    seed: int = 0,
) -> tuple[Deltas, dict]:
    """Σ weight · ΔW of adapters of one base → (deltas, report). A module that only some adapt counts with these alone.

    Args:
        adapters: with their weights; their ranks, scalings and roles may differ.
        method: `linear`: the exact sum, then the smallest rank, one for all modules, that keeps `energy` of it, or `rank`.
            `cat`: the exact sum, factors side by side.
            `ties` (arXiv 2306.01708): of each ΔW the `density` largest entries, the sign by weighted sum, then the weighted
            average of those that agree with it. `dare` (arXiv 2311.03099): entries dropped at random, others divided by
            1 - `drop`, then the weighted sum. Both work on the entries of ΔW, one dense module at a time, and end with the best
            approximation of `rank`; by default the sum of the ranks.
        energy: share of Σσ² over all modules, above 0; 1.0, the default, loses nothing but rounding.
        seed: of what `dare` drops, and of the randomized SVD.

    Raises `InputError` for adapters of different bases, ones that are more than a sum of ΔW, and arguments out of range.
    """
    _check_merge(method=method, rank=rank, energy=energy, density=density, drop=drop)
    for adapter, weight in adapters:
        if not math.isfinite(weight) or weight == 0:
            raise InputError(f"merge: {adapter.name} has the weight {weight:g}; take a number other than 0")
    notes = check_together([adapter for adapter, _ in adapters])
    read = _read([adapter for adapter, _ in adapters])
    parts = {  # by name, so that what is drawn at random does not depend on the order in a file
        module: [
            (deltas[module], weight) for deltas, (_, weight) in zip(read, adapters, strict=True) if module in deltas
        ]
        for module in sorted({module for deltas in read for module in deltas})
    }
    _check_shapes(parts)
    if method == "cat":
        made, measured = concatenate(parts)
    elif method == "linear":
        made, measured = reduce_rank(concatenate(parts)[0], rank, energy)
    else:
        combine = ties(parts, density) if method == "ties" else dare(parts, drop, seed)
        made, measured = approximate(combine, parts, rank, seed)
    report = {
        "method": method,
        "of": _origin(adapters),
        "rank_before": [_rank(deltas) for deltas in read],
        **({"density": density} if method == "ties" else {"drop": drop, "seed": seed} if method == "dare" else {}),
        **_outcome(made, measured),
        "notes": notes,
    }
    return made, report


def resize(adapter: Adapter, *, rank: int | None = None, energy: float | None = None) -> tuple[Deltas, dict]:
    """The best approximation of ΔW of that rank, or of the smallest that keeps `energy` of Σσ² → (deltas, report).

    Raises `InputError` for an adapter that is more than a sum of ΔW, and arguments out of range.
    """
    _check_size(rank, energy)
    before = read_deltas(adapter)
    made, measured = reduce_rank(before, rank, energy)
    notes = (
        [] if rank is None or rank <= _rank(before) else [f"--rank {rank}: it has rank {_rank(before)}, and keeps it"]
    )
    report = {
        "of": _origin([(adapter, 1.0)]),
        "rank_before": [_rank(before)],
        **_outcome(made, measured),
        "notes": notes,
    }
    return made, report


def merge_adapters(named: Mapping[str, float], output: str | Path, **options) -> dict:
    """Merge adapters, by name, path or Hub id with their weights, into a new one at `output` → report, ready for JSON.

    Prompt, decoding and what else there can be one of are those of the first. Options: see `merge`.
    """
    output, problems = Path(output), []
    collect_errors(problems, check_output, output)
    collect_errors(problems, partial(_check_merge, **options))
    opened = [collect_errors(problems, open_adapter, name) for name in named]
    if len(named) < 2:
        problems.append("merge: takes two adapters at least, as A=0.7 B=0.3")
    raise_all(problems)
    adapters = list(zip(opened, named.values(), strict=True))
    made, report = merge(adapters, **options)
    _write(output, made, opened[0], {"command": "merge", **report}, _merge_whole(adapters))
    return {"output": str(output), **report}


def resize_adapter(name: str, output: str | Path, *, rank: int | None = None, energy: float | None = None) -> dict:
    """Write the adapter in a smaller rank to `output` → report, ready for JSON. Otherwise as `resize`."""
    output, problems = Path(output), []
    collect_errors(problems, check_output, output)
    collect_errors(problems, _check_size, rank, energy)
    adapter = collect_errors(problems, open_adapter, name)
    raise_all(problems)
    made, report = resize(adapter, rank=rank, energy=energy)
    _write(output, made, adapter, {"command": "resize", **report}, whole_modules(adapter))
    return {"output": str(output), **report}


def _write(output: Path, made: Deltas, first: Adapter, origin: dict, whole: dict[str, torch.Tensor]) -> None:
    scopes, roles = scopes_and_roles(list(made), family_named(first.manifest.get("family"), list(made)))
    manifest = derive(
        first.manifest, origin, rank=_rank(made), alpha=_rank(made), scopes=scopes, roles=roles,
        base_model_id=first.base_model_id, base_model_revision=first.base_model_revision,
    )  # fmt: skip
    write_adapter(output, made, like=first, manifest=manifest, whole=whole)


# What may be merged


def _check_size(rank: int | None, energy: float | None) -> None:
    raise_all(ResizeArguments(rank=rank, energy=energy).check())


def _check_merge(**options) -> None:
    raise_all(MergeArguments(**options).check())


def check_together(adapters: Sequence[Adapter]) -> list[str]:
    """Raise `InputError` unless all were made for one base; notes of what else they differ in."""
    first, problems, notes = adapters[0], [], []
    for other in adapters[1:]:
        pair = f"adapters {first.name} and {other.name}"
        family, theirs = (family_named(one.manifest.get("family"), list(one.modules)) for one in (first, other))
        modules = {*first.modules, *other.modules}
        bare = [
            not any(f and f.scope_of(name) for name in one.modules) for one, f in ((first, family), (other, theirs))
        ]
        if bare[0] != bare[1]:
            alone = (first if bare[0] else other).name
            problems.append(
                f"{pair}: {alone} is of a bare language model, whose layers have other names; transfer it first"
            )
            continue
        parts = {
            _PARTS.get(family.scope_of(name), "language_model") if family else "language_model" for name in modules
        }
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
            for key in _ONE_ANSWER
            if key in first.manifest and key in other.manifest and first.manifest[key] != other.manifest[key]
        ]
    raise_all(problems)
    return notes


def _short(value: object) -> str:
    text = f"{len(value)} of them" if isinstance(value, list) else repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _read(adapters: Sequence[Adapter]) -> list[Deltas]:
    problems: list[str] = []
    read = [collect_errors(problems, read_deltas, adapter) for adapter in adapters]
    raise_all(problems)
    return read


def _check_shapes(parts: Parts) -> None:
    for module, pairs in parts.items():
        shapes = {factors.shape for factors, _ in pairs}
        if len(shapes) > 1:
            shown = " and ".join(map(str, sorted(shapes)))
            raise InputError(f"merge: {module} has shapes {shown}: the adapters were made for different bases")


def _merge_whole(adapters: Weighted) -> dict[str, torch.Tensor]:
    """The mean of heads for the same answers, by normalised weights."""
    whole = [whole_modules(adapter) for adapter, _ in adapters]
    if not any(whole):
        return {}
    first, total = adapters[0][0], sum(weight for _, weight in adapters)
    for (adapter, _), held in zip(adapters, whole, strict=True):
        shapes = {name: tensor.shape for name, tensor in held.items()}
        if adapter.answers != first.answers or shapes != {name: tensor.shape for name, tensor in whole[0].items()}:
            raise InputError(
                f"adapters {first.name} and {adapter.name}: their heads are not for the same answers in the same order, so "
                "there is no mean of them; train them on one list of answers"
            )
    if total <= 0:
        raise InputError(f"merge: the weights add up to {total:g}, and there is no mean of the heads by these")
    return {
        name: sum(held[name].float() * (weight / total) for held, (_, weight) in zip(whole, adapters, strict=True))
        for name in whole[0]
    }


# The report


def _origin(adapters: Weighted) -> list[dict]:
    return [{"name": adapter.name, "sha256": adapter.digest, "weight": weight} for adapter, weight in adapters]


def _rank(deltas: Deltas) -> int:
    return max(factors.rank for factors in deltas.values())


def _outcome(made: Deltas, measured: Error) -> dict:
    error = measured.lost / measured.total if measured.total else 0.0
    return {
        "rank": _rank(made),
        "modules": len(made),
        "energy_kept": max(0.0, 1 - error**2),
        "relative_error": error,
        "worst_module": {"name": measured.worst[1], "relative_error": measured.worst[0]},
    }
