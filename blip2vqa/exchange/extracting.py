"""Make an adapter of the difference of two checkpoints: what a full fine-tuning changed, as far as LoRA can hold it."""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig
from torch import nn

from blip2vqa.adapters.algebra import Factors, derive, largest_rank, write_adapter
from blip2vqa.adapters.base.checkpoints import Checkpoint, open_checkpoint
from blip2vqa.adapters.base.fingerprints import base_facts
from blip2vqa.adapters.files.adapter import Adapter, check_output
from blip2vqa.adapters.lora import modules_to_adapt
from blip2vqa.config.roles import ROLES
from blip2vqa.models.classes import head_answers
from blip2vqa.models.places import scopes_and_roles
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.formatting import percent
from blip2vqa.utils.progress import show_progress

EXACT_SIDE = 1024
"""Up to this many rows or columns, all singular vectors cost less than the product that finds them."""
_OVERSAMPLED, _POWERS = 16, 4


class _Layer(NamedTuple):
    """What differs in a linear layer."""

    factors: Factors
    error: float
    """‖ΔW − BA‖ / ‖ΔW‖."""
    square: float
    """‖ΔW‖²."""


def extract(
    base: str,
    tuned: str,
    output: str | Path,
    *,
    rank: int = 16,
    revision: str | None = None,
    tuned_revision: str | None = None,
) -> dict:
    """Write the LoRA adapter of that rank which, on `base`, comes nearest to `tuned`.

    Returns {base_model_id, tuned, output, rank, layers, relative_error, worst, by_layer, whole, lost, notes}, in JSON's types.
    Raises `InputError` where they are not two copies of one architecture, or no linear layer differs.
    """
    output = Path(output)
    check_output(output)
    one, other = open_checkpoint(base, revision), open_checkpoint(tuned, tuned_revision)
    _check_alike(one, other)
    layers, lost, whole = _compare(one, other, rank)
    if not layers:
        beside = f"; other weights do, such as {next(iter(lost))}" if lost else ""
        raise InputError(f"{tuned}: no linear layer differs from {base}, so there is nothing to extract{beside}")
    deltas = {name: layer.factors for name, layer in layers.items()}
    errors = {name: layer.error for name, layer in layers.items()}
    left = sum(layer.square * layer.error**2 for layer in layers.values())
    total = sum(layer.square for layer in layers.values())
    error = math.sqrt(left / total)
    facts = base_facts(one)
    facts["scopes"], facts["roles"] = scopes_and_roles(list(deltas), one.family)
    if whole:
        facts["answers"] = list(head_answers(other.config))
    manifest = derive(
        facts,
        {"command": "extract", "of": [{"name": str(tuned), "revision": tuned_revision}], "error": error},
        rank=largest_rank(deltas),
    )
    saved = LoraConfig(modules_to_save=list(one.trained_whole)) if whole else LoraConfig()
    like = Adapter(str(tuned), output, None, saved, {})
    write_adapter(output, deltas, like=like, manifest=manifest, whole=whole)
    worst = max(errors, key=errors.get)
    return {
        "base_model_id": str(base), "tuned": str(tuned), "output": str(output), "rank": manifest["rank"],
        "layers": len(layers), "relative_error": error, "worst": {"layer": worst, "relative_error": errors[worst]},
        "by_layer": errors, "whole": sorted(whole), "lost": sorted(lost), "notes": _notes(one, other, lost, total),
    }  # fmt: skip


def nearest(delta: torch.Tensor, rank: int) -> tuple[Factors, float]:
    """Find the best factors of that rank for ΔW [out, in] in float32; return them with their relative error ‖ΔW − BA‖ / ‖ΔW‖.

    They come from the leading singular vectors of the smaller side: exact, through its Gram matrix in float64, where it is
    small; else by random projection with power iterations, from a fixed seed (Halko, Martinsson and Tropp, "Finding structure
    with randomness", 2011, arXiv 0909.4061).
    """
    wide = delta if delta.shape[0] <= delta.shape[1] else delta.T
    rank = min(rank, wide.shape[0])
    if wide.shape[0] <= EXACT_SIDE:
        gram = wide.double()
        vectors = torch.linalg.eigh(gram @ gram.T)[1].flip(1)[:, :rank].float()  # eigenvalues come smallest first
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vectors = torch.svd_lowrank(wide, min(rank + _OVERSAMPLED, wide.shape[0]), niter=_POWERS)[0][:, :rank]
    core = vectors.T @ wide  # [rank, larger side]; its rows are as long as the singular values
    roots = core.norm(dim=1).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    left, right = vectors * roots, core / roots[:, None]
    error = ((wide - vectors @ core).norm() / wide.norm()).item()
    if wide is delta:
        return Factors(right.contiguous(), left.contiguous()), error
    return Factors(left.T.contiguous(), right.T.contiguous()), error


def _check_alike(base: Checkpoint, tuned: Checkpoint) -> None:
    """Raise `InputError` unless both are unquantized checkpoints of one architecture."""
    problems = [
        f"{one.base_model_id}: is stored in {one.quantized}, whose rounding would be taken for a difference; "
        "name the unquantized one"
        for one in (base, tuned) if one.quantized
    ]  # fmt: skip
    kinds = [type(one.model).__name__ for one in (base, tuned)]
    if kinds[0] != kinds[1]:
        problems.append(f"{tuned.base_model_id}: is a {kinds[1]}, and {base.base_model_id} a {kinds[0]}")
    elif base.family is not tuned.family:
        problems.append(f"{tuned.base_model_id}: is {tuned.family.name}, and {base.base_model_id} {base.family.name}")
    raise_all(problems)


def _compare(
    base: Checkpoint, tuned: Checkpoint, rank: int
) -> tuple[dict[str, _Layer], dict[str, tuple[float, float]], dict[str, torch.Tensor]]:
    """Compare two checkpoints weight by weight.

    Returns the linear layers that differ, brought to `rank` at once; name → (‖ΔW‖, ‖ΔW‖ / ‖W‖) of other weights that differ,
    the ratio being 1 where the base has no such weight; and the weights of the head where that differs.
    """
    if base.family is not None:  # the layers that an adapter may hold: those with a role, and the projection
        found = modules_to_adapt(base.model, base.family, ROLES, base.family.scopes)
        linear = {f"{name}.weight" for names in found.values() for name in names}
    else:
        modules, head = base.model.named_modules(), base.model.get_output_embeddings()
        linear = {f"{name}.weight" for name, one in modules if isinstance(one, nn.Linear) and one is not head}
    layers, lost, own = {}, {}, base.trained_whole
    for name in show_progress(tuned.names, "extracting", unit="weight", leave=False):
        if name not in base.names or base.shape(name) != tuned.shape(name):
            if name in linear:
                shapes = f"{list(tuned.shape(name))} and {list(base.shape(name))}"
                raise InputError(f"{tuned.base_model_id}: {name} is of another shape than the base's: {shapes}")
            if not name.startswith(own):
                lost[name] = tuned.tensor(name).float().norm().item(), 1.0
            continue
        before, after = base.tensor(name).float(), tuned.tensor(name).float()
        if name.startswith(own) or torch.equal(before, after):
            continue
        delta = after - before
        size = delta.norm().item()
        if name in linear:
            layers[name.removesuffix(".weight")] = _Layer(*nearest(delta, rank), size**2)
        else:
            lost[name] = size, size / (before.norm().item() or size)
    head = [name for name in tuned.names if name.startswith(own)]
    # A head of another shape, for other answers, is unlike the base's, too.
    if any(name not in base.names or not torch.equal(base.tensor(name), tuned.tensor(name)) for name in head):
        return layers, lost, {name: tuned.tensor(name).float() for name in head}
    return layers, lost, {}


def _notes(base: Checkpoint, tuned: Checkpoint, lost: dict[str, tuple[float, float]], held: float) -> list[str]:
    """Note what the adapter does not hold; `held` is the sum of the squared differences of the layers."""
    notes = []
    if base.stored_dtype != tuned.stored_dtype:
        kinds = [str(one.stored_dtype).removeprefix("torch.") for one in (base, tuned)]
        notes.append(
            f"the base is in {kinds[0]}, the fine-tuned one in {kinds[1]}: rounding is a part of the difference"
        )
    if lost:
        square = sum(size**2 for size, _ in lost.values())
        biggest = max(lost, key=lambda name: lost[name][1])
        most = percent(lost[biggest][1], 2)
        notes.append(
            f"lost: {len(lost)} weights that differ and that LoRA cannot hold (norms, biases, embeddings), "
            f"{percent(square / (square + held), 2)} of the squared difference; most changed is {biggest}, by {most}"
        )
    return notes
