"""Whether the accelerator computes what the CPU does: losses, gradients and answers of small models of every family."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from blip2vqa.adapters.fused_lora import drop, fuse, keep_mask
from blip2vqa.models.loading import find_device
from blip2vqa.utils.errors import InputError
from gpu_parts.card import compute_exactly, has_bfloat16
from gpu_parts.context import Context
from gpu_parts.small import ANSWERS, BASES, Small, base, pictures

CPU = torch.device("cpu")
TYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Bounds:
    """How far a device may be from the CPU's float32 in one precision.

    The small models magnify a rounding by 10 to 30; on a CPU they are themselves a third to a tenth of these bounds away.
    """

    loss: float
    """Share of the loss."""
    gradients: float
    """Norm of the difference, of the gradients' norm."""
    features: float
    confidence: float
    """Largest difference of probabilities of equal answers."""


BOUNDS = {
    "float32": Bounds(1e-5, 1e-3, 1e-4, 1e-4),
    "bfloat16": Bounds(1e-2, 0.2, 3e-2, 2e-2),
    "float16": Bounds(2e-3, 0.06, 3e-3, 5e-3),
}


@dataclass(frozen=True)
class Check:
    """One comparison; `bound` None: said and not judged, or with a `note` left out."""

    name: str
    value: float | bool | None
    bound: float | None = None
    least: bool = False
    """Whether the value must reach the bound; else it must not exceed it."""
    note: str = ""

    def row(self) -> dict:
        """As JSON; not a number is never right."""
        right = None
        if self.bound is not None:
            right = bool(self.value >= self.bound if self.least else self.value <= self.bound)
        return asdict(self) | {"right": right}


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Norm of the difference, of the norm of `other`."""
    one, other = one.float().cpu(), other.float().cpu()
    return ((one - other).norm() / other.norm().clamp(min=1e-30)).item()


def same(said: list[tuple[str, float]], expected: list[tuple[str, float]]) -> float:
    """Share of equal answers."""
    return sum(one[0] == other[0] for one, other in zip(said, expected, strict=True)) / len(expected)


def confidence_apart(said: list[tuple[str, float]], expected: list[tuple[str, float]]) -> float:
    """Largest difference of the confidences of equal answers; infinite where no answers are equal."""
    pairs = [(one[1], other[1]) for one, other in zip(said, expected, strict=True) if one[0] == other[0]]
    return max((abs(one - other) for one, other in pairs), default=float("inf"))


def left_out(dtype: str, device: torch.device) -> str | None:
    """Why a precision is not tried on a device; None where it is."""
    if dtype == "bfloat16" and not has_bfloat16(device):
        return "this card does not compute in bfloat16"
    return None


def check_family(kind: str, context: Context) -> list[dict]:
    """Compare a small model of one family on the device with itself on the CPU, in every precision."""
    compute_exactly()
    device, there, checks = find_device(), base(context.scratch, kind), []
    expected = Seen(Small.load(there, CPU, "float32"))
    for dtype in TYPES:
        why = left_out(dtype, device)
        if why is None:
            try:
                small = Small.load(there, device, dtype)
            except InputError as refusal:
                why = f"refused: {refusal}"
        if why:
            checks.append(Check(f"{dtype}", None, note=why))
            continue
        checks += compare(dtype, Seen(small), expected)
    return [check.row() for check in checks]


class Seen:
    """What one small model computes on one device in one precision."""

    def __init__(self, small: Small):
        small.adapt()
        self.features = small.features.of(pictures()).float().cpu()
        self.loss, self.gradients = small.step()
        self.one_row = small.step(shared=False) if small.text.shares_image else None
        small.as_peft()
        self.peft = small.step()
        small.as_ours()
        # Of random weights many words are near ties in 16 bits, the few of a list are not.
        self.answers = {"listed": small.ask(small.request(answers=ANSWERS[:4]))}
        if small.loaded.dtype == torch.float32:
            self.answers["greedy"] = small.ask(small.request())
            self.answers["beams"] = small.ask(small.request(beams=3))


def compare(dtype: str, seen: Seen, expected: Seen) -> list[Check]:
    """All comparisons in one precision."""
    bounds = BOUNDS[dtype]

    def steps(name: str, loss: float, gradients: torch.Tensor, other: tuple[float, torch.Tensor]) -> list[Check]:
        far = abs(loss - other[0]) / abs(other[0])
        return [
            Check(f"{dtype}: loss {name}", far, bounds.loss),
            Check(f"{dtype}: gradients {name}", apart(gradients, other[1]), bounds.gradients),
        ]

    beside = "beside the CPU's float32"
    checks = [Check(f"{dtype}: features {beside}", apart(seen.features, expected.features), bounds.features)]
    checks += steps(beside, seen.loss, seen.gradients, (expected.loss, expected.gradients))
    checks += steps("fused LoRA beside PEFT's", seen.loss, seen.gradients, seen.peft)
    if seen.one_row:
        checks += steps("shared rows beside one a question", seen.loss, seen.gradients, seen.one_row)
    for way, said in seen.answers.items():
        share, wanted = same(said, expected.answers[way]), expected.answers[way]
        least = 1.0 if dtype == "float32" else 0.8
        checks.append(Check(f"{dtype}: equal answers, {way}", share, least, least=True))
        if share:
            far = confidence_apart(said, wanted)
            checks.append(Check(f"{dtype}: confidences, {way}", far, bounds.confidence))
    return checks


def check_dropout(context: Context) -> list[dict]:
    """Compare a fused layer that drops with the same masks and plain products, forward and backward."""
    compute_exactly()
    device, p, checks = find_device(), 0.3, []
    for dtype in (one for one in TYPES if left_out(one, device) is None):
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Linear(64, 96)).to(device, getattr(torch, dtype))
        config = LoraConfig(r=4, lora_alpha=8, lora_dropout=p, target_modules=["0"], init_lora_weights=False)
        model = get_peft_model(layer, config)
        fuse(model)
        lora = model.base_model.model[0]
        x = torch.randn(200, 64).to(device, getattr(torch, dtype)).requires_grad_()
        a, b = lora.lora_A["default"].weight, lora.lora_B["default"].weight
        model.train()
        torch.manual_seed(1)
        said = lora(x)
        found = torch.autograd.grad(said.float().square().sum(), [x, a, b])
        torch.manual_seed(1)
        keep = keep_mask(x.shape, p, device)
        kept = -keep.float().mean().item()
        checks.append(Check(f"{dtype}: share kept beside {1 - p:.1f}", abs(kept - (1 - p)), 0.02))
        exact = x.detach().float().requires_grad_()
        dropped = torch.where(keep.bool(), exact, 0.0) / (1 - p)
        plain = lora.base_layer.float()(exact) + lora.scaling["default"] * (dropped @ a.t() @ b.t())
        wanted = torch.autograd.grad(plain.square().sum(), [exact, a, b])
        far = max(apart(one, other) for one, other in zip((said, *found), (plain, *wanted), strict=True))
        checks.append(Check(f"{dtype}: output and gradients with dropout", far, BOUNDS[dtype].features))
        checks.append(Check(f"{dtype}: dropped bits", drop(x.detach(), keep)[keep == 0].abs().max().item(), 0.0))
    return [check.row() for check in checks]


STEPS: dict[str, Callable[[Path], list[dict]]] = {
    **{kind: (lambda context, kind=kind: check_family(kind, context)) for kind in BASES},
    "dropout": check_dropout,
}
