"""Arithmetic on what LoRA adds to a weight, ΔW = scaling · B·A, kept as a pair of factors and never as the full matrix."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from torch.nn.functional import pad

from blip2vqa.adapters.files.adapter import PREFIX, Adapter, save_adapter, versions
from blip2vqa.adapters.validation.manifest_schema import USES
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.threads import one_thread

A, B = "lora_A.weight", "lora_B.weight"
_LORA = re.compile(r"\.(lora_\w+(?:\.\w+)?)$")

# Initialisations that leave the base's weights as they are, so that B·A is all that an adapter adds. The others (PiSSA,
# OLoRA, CorDA, LoftQ, LoRA-GA) move a part of W into B·A first, or quantize W.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_BIASES = "it has biases of its own"
_BIASED = "use it alone as it is, or fuse it into its base (fuse); extract makes an adapter of that, without the biases"
_REMEDY = "fuse it into its base (fuse), then take the difference to the base (extract)"


@dataclass(frozen=True)
class Factors:
    """ΔW = b @ a of one linear layer, the scaling included in b."""

    a: torch.Tensor
    """[rank, in], float32."""
    b: torch.Tensor
    """[out, rank], float32."""

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of ΔW: (out, in)."""
        return self.b.shape[0], self.a.shape[1]

    def dense(self) -> torch.Tensor:
        """Compute ΔW [out, in] itself."""
        return self.b @ self.a


Deltas = dict[str, Factors]
"""Module's name in the base → what is added to its weight."""


def split_weights(adapter: Adapter) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Return (module → its LoRA tensors by the ends of their keys, as in `lora_A.weight`; name in the base → other tensor)."""
    lora: dict[str, dict[str, torch.Tensor]] = {}
    others = {}
    for key, weight in adapter.weights.items():
        key = key.removeprefix(PREFIX)
        if found := _LORA.search(key):
            lora.setdefault(key[: found.start()], {})[found[1]] = weight
        else:
            others[key.replace(".base_layer.", ".")] = weight  # where PEFT keeps the bias of a layer that it adapts
    return lora, others


def rank_and_scaling(config: LoraConfig, module: str) -> tuple[int, float]:
    """Find rank and scaling of one module as PEFT does (`LoraModel._create_and_replace`, `LoraLayer.update_layer`)."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(ranks, module), config.r)
    alpha = alphas.get(get_pattern_key(alphas, module), config.lora_alpha)
    return rank, alpha / (math.sqrt(rank) if config.use_rslora else rank)


@one_thread()
def read_deltas(adapter: Adapter) -> Deltas:
    """Read what the adapter adds to each weight. Raises `InputError` for one that does more than that, or is damaged."""
    lora, _ = split_weights(adapter)
    more = more_than_deltas(adapter.config)
    remedy = _BIASED if more == [_BIASES] else _REMEDY
    problems = [f"adapter {adapter.name}: it is more than a sum of ΔW: {found}; {remedy}" for found in more]
    deltas = {}
    for module, tensors in lora.items():
        rank, scaling = rank_and_scaling(adapter.config, module)
        if set(tensors) != {A, B} or tensors[A].ndim != 2 or tensors[B].ndim != 2:
            if not problems:
                found = ", ".join(sorted(tensors))
                problems.append(f"adapter {adapter.name}: {module} holds {found}, not the A and B of a linear layer")
        elif not tensors[A].shape[0] == tensors[B].shape[1] == rank:
            problems.append(
                f"adapter {adapter.name}: {module} has A {list(tensors[A].shape)} and B {list(tensors[B].shape)}, but rank "
                f"{rank} in its configuration"
            )
        else:
            deltas[module] = Factors(tensors[A].float(), tensors[B].float() * scaling)
    if not lora:
        problems.append(f"adapter {adapter.name}: holds no LoRA weights")
    raise_all(problems)
    return deltas


def more_than_deltas(config: LoraConfig) -> list[str]:
    """List what an adapter does beside adding scaling · B·A to weights."""
    start, rebuilt = config.init_lora_weights, ("layer_replication", "target_parameters", "trainable_token_indices")
    used = variants_used(config) + [name for name in rebuilt if getattr(config, name)]
    found = {
        "DoRA's magnitudes rescale the base's weights beside adding ΔW": config.use_dora,
        f"it started with {start}, which changes the base's own weights": start not in _PLAIN_STARTS,
        _BIASES: config.bias != "none" or config.lora_bias,
        f"it uses {', '.join(used)} of PEFT": used,
    }
    return [what for what, does in found.items() if does]


def variants_used(config: LoraConfig) -> list[str]:
    """Name PEFT's variants of LoRA that a configuration uses, DoRA left out."""
    variants = [field.name for field in fields(config) if field.metadata.get("is_lora_variant")]
    return [name for name in variants if name != "use_dora" and getattr(config, name)]


def whole_modules(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the weights that the adapter holds as they are, such as ViLT's head, by their names in the base.

    Raises `InputError` for some that PEFT was not told to save: parts of the base that came along.
    """
    _, others = split_weights(adapter)
    saved = adapter.config.modules_to_save or []
    strays = [name for name in others if not any(re.match(rf"(?:.*\.)?{re.escape(part)}\.", name) for part in saved)]
    if strays:
        raise InputError(
            f"adapter {adapter.name}: holds weights of the base beside LoRA ({strays[0]}, {len(strays)} in all); {_REMEDY}"
        )
    return others


def norm(factors: Factors) -> float:
    """Compute the Frobenius norm ‖ΔW‖ through rank × rank Gram matrices in float64: ‖BA‖² = Σ (BᵀB) ∘ (AAᵀ)."""
    a, b = factors.a.double(), factors.b.double()
    return math.sqrt(((b.T @ b) * (a @ a.T)).sum().clamp(min=0))


def add(parts: list[tuple[Factors, float]]) -> Factors:
    """Compute Σ weight · ΔW exactly: the factors side by side, their ranks added up."""
    return Factors(
        torch.cat([factors.a for factors, _ in parts]),
        torch.cat([factors.b * weight for factors, weight in parts], dim=1),
    )


def distance(one: Factors, other: Factors) -> float:
    """Compute the Frobenius norm ‖ΔW − ΔW'‖; below 1e-8 of their norms it is rounding."""
    return norm(add([(one, 1.0), (other, -1.0)]))


def decompose(factors: Factors) -> tuple[Factors, torch.Tensor]:
    """Split the singular values of ΔW evenly between b and a, the largest first; return (factors, singular values).

    The first k columns of b and rows of a are then the best approximation of rank k (Eckart and Young). Computed by QR of both
    factors and SVD of the small product of the triangles, in float64; there are min(rank, in, out) singular values.
    """
    left, left_small = torch.linalg.qr(factors.b.double())
    right, right_small = torch.linalg.qr(factors.a.T.double())
    u, values, v = torch.linalg.svd(left_small @ right_small.T, full_matrices=False)
    roots = values.sqrt()
    return Factors(((roots[:, None] * v) @ right.T).float(), (left @ (u * roots)).float()), values


def truncate(factors: Factors, rank: int) -> Factors:
    """Keep the first `rank` columns of b and rows of a."""
    return Factors(factors.a[:rank].clone(), factors.b[:, :rank].clone())


def numerical_rank(values: torch.Tensor) -> int:
    """Count the singular values [n], the largest first, that are more than float32 factors leave of zeros; at least 1."""
    return max(1, int((values > values[0] * 4 * torch.finfo(torch.float32).eps).sum()))


def largest_rank(deltas: Deltas) -> int:
    """Return the largest rank of any module."""
    return max(factors.rank for factors in deltas.values())


def derive(manifest: Mapping, origin: dict, **changes) -> dict:
    """Make the manifest of an adapter that is made from the one that `manifest` describes.

    Base, prompt, decoding and answers stay, but for `changes`. What was measured or trained does not hold any more.
    `origin`: {"command": "merge", "of": [{"name": …, "sha256": …, "weight": …}], …}.
    """
    inherited = {key: manifest[key] for key, use in USES.items() if use.inherited and key in manifest}
    return {**inherited, "scaling": "alpha / rank", **changes, "origin": origin, "versions": versions()}


def write_adapter(
    folder: Path,
    deltas: Deltas,
    *,
    like: Adapter,
    manifest: dict,
    whole: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a plain PEFT adapter that adds `deltas`: float32, scaling 1, its modules by their full names.

    `like`: the adapter that it is made from, whose base (where the manifest names none), task type and modules to save it has.
    `whole`: weights to hold as they are, as `whole_modules` gives them. Raises `InputError` where the folder exists.
    """
    deltas, ranks = _plain_ranks(deltas)
    rank = largest_rank(deltas)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
        lora_dropout=0.0,
        modules_to_save=like.config.modules_to_save if whole else None,
        base_model_name_or_path=manifest.get("base_model_id") or like.base_model_id,
        revision=manifest.get("base_model_revision") or like.base_model_revision,
        task_type=like.config.task_type,
        inference_mode=True,
    )
    config.target_modules = sorted(deltas)  # a list, since PEFT would write a set in another order every time
    weights = dict(whole or {})
    for module, factors in deltas.items():
        weights |= {f"{module}.{A}": factors.a, f"{module}.{B}": factors.b}
    save_adapter(folder, config, {f"{PREFIX}{name}": weight for name, weight in weights.items()}, manifest)


def _plain_ranks(deltas: Deltas) -> tuple[Deltas, dict[str, int]]:
    """Return (deltas, rank pattern of the modules whose rank is not the largest) such that PEFT finds each module's own rank.

    PEFT takes the first name in the pattern that is the end of a module's name. Where that would be another module's, all get
    the largest rank, filled up with zeros.
    """
    largest = largest_rank(deltas)
    ranks = {module: factors.rank for module, factors in deltas.items() if factors.rank != largest}
    ends = {module: [module[dot.end() :] for dot in re.finditer(r"\.", module)] for module in deltas}
    if any(ranks.get(end, deltas[module].rank) != deltas[module].rank for module in deltas for end in ends[module]):
        filled = {}
        for module, factors in deltas.items():
            zeros = largest - factors.rank
            filled[module] = Factors(pad(factors.a, (0, 0, 0, zeros)), pad(factors.b, (0, zeros)))
        return filled, {}
    return deltas, ranks
