"""Describe what an adapter holds: its modules by layer and role, and how much each adds to its weight."""

from pathlib import Path

import torch

from blip2vqa.adapters.algebra import A, B, Factors, more_than_deltas, norm, rank_and_scaling, split_weights
from blip2vqa.adapters.files.adapter import Adapter
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.manifest_schema import USES
from blip2vqa.config.roles import ROLES
from blip2vqa.models.families import family_named
from blip2vqa.models.family import Family
from blip2vqa.models.places import place_of
from blip2vqa.reporting.norms import draw_norms
from blip2vqa.utils.errors import file_error
from blip2vqa.utils.files import write_bytes_atomic
from blip2vqa.utils.threads import one_thread


def inspect(adapter: str | Path, plot: str | Path | None = None) -> dict:
    """Read an adapter and describe it (see `describe`); `plot`: PNG file to draw the norms of its layers into.

    Raises `InputError` for what is no adapter, or where the picture cannot be written.
    """
    report = describe(open_adapter(adapter))
    if plot:
        try:
            write_bytes_atomic(plot, draw_norms(report))
        except OSError as error:
            raise file_error(f"--plot {plot}: cannot be written", error) from error
    return report


@one_thread()
def describe(adapter: Adapter) -> dict:
    """Collect everything that an adapter's files tell, ready for JSON.

    `modules` has one entry for each adapted layer: name, scope, stack, layer, role, rank, scaling, shape (out, in), parameters,
    dtype, norm (Frobenius norm of scaling · B·A) and `untrained` (whether that is 0). `norms` has the root of the sum of the
    squared norms by stack, layer and role. `whole` lists weights that stand in place of the base's, and `beside` those that are
    more than A and B, such as DoRA's magnitudes.
    """
    lora, others = split_weights(adapter)
    family = family_named(adapter.manifest.get("family"), list(lora))
    modules = [_module(adapter, name, tensors, family) for name, tensors in lora.items() if {A, B} <= set(tensors)]
    modules.sort(key=lambda row: (row["stack"], -1 if row["layer"] is None else row["layer"]))
    beside = {
        f"{name}.{kind}": tensor
        for name, tensors in lora.items()
        for kind, tensor in tensors.items()
        if kind not in (A, B) or not {A, B} <= set(tensors)
    }
    notes = [f"{found}: the norms are of scaling · B·A alone" for found in more_than_deltas(adapter.config)]
    if not adapter.manifest:
        notes.append("no blip2vqa.json: made with other tools, or it was left behind")
    return {
        "name": adapter.name,
        "sha256": adapter.digest,
        "bytes": sum(tensor.nbytes for tensor in adapter.weights.values()),
        "parameters": sum(tensor.numel() for tensor in adapter.weights.values()),
        "base_model_id": adapter.base_model_id,
        "base_model_revision": adapter.base_model_revision,
        "manifest": {key: adapter.manifest[key] for key, use in USES.items() if use.shown and key in adapter.manifest},
        "answers": adapter.answers and len(adapter.answers),
        "norm": _root([row["norm"] for row in modules]),
        "untrained": [row["name"] for row in modules if row["untrained"]],
        "norms": _norms(modules),
        "modules": modules,
        "whole": [_tensor(name, tensor) | {"norm": tensor.double().norm().item()} for name, tensor in others.items()],
        "beside": [_tensor(name, tensor) for name, tensor in beside.items()],
        "notes": notes,
    }


def _module(adapter: Adapter, name: str, tensors: dict[str, torch.Tensor], family: Family | None) -> dict:
    place, (_, scaling) = place_of(name, family), rank_and_scaling(adapter.config, name)
    a, b = tensors[A], tensors[B]
    size = scaling * norm(Factors(a.flatten(1), b.flatten(1)))
    return {
        "name": name, "scope": place.scope, "stack": place.stack, "layer": place.layer, "role": place.role,
        "rank": a.shape[0], "scaling": scaling, "shape": [b.shape[0], *a.shape[1:]], "parameters": a.numel() + b.numel(),
        "dtype": str(a.dtype).removeprefix("torch."), "norm": size, "untrained": size == 0,
    }  # fmt: skip


def _tensor(name: str, tensor: torch.Tensor) -> dict:
    return {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _norms(modules: list[dict]) -> dict[str, dict]:
    """Sum up the norms by stack of layers.

    Returns stack → {"layers": [numbers], "roles": [names], "cells": [layer][role], None where the layer has no such role,
    "by_layer": [layer], "by_role": [role]}.
    """
    order = [*(f"{front}{role}" for front in ("", "cross ") for role in ("qkv", *ROLES[:4])), *ROLES[4:]]
    found = {}
    for stack in dict.fromkeys(row["stack"] for row in modules):
        here = [row for row in modules if row["stack"] == stack]
        layers = sorted({row["layer"] for row in here}, key=lambda layer: -1 if layer is None else layer)
        there = {row["role"] for row in here}
        roles = [role for role in order if role in there] + sorted(there - {*order})
        cells: dict = {}
        for row in here:
            cells.setdefault((row["layer"], row["role"]), []).append(row["norm"])
        found[stack] = {
            "layers": layers,
            "roles": roles,
            "cells": [[_root(cells.get((layer, role))) for role in roles] for layer in layers],
            "by_layer": [_root([row["norm"] for row in here if row["layer"] == layer]) for layer in layers],
            "by_role": [_root([row["norm"] for row in here if row["role"] == role]) for role in roles],
        }
    return found


def _root(norms: list[float] | None) -> float | None:
    return None if norms is None else sum(value**2 for value in norms) ** 0.5
