"""Progress on the screen, and checkpoints from which a training goes on."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from blip2vqa.models.precision import cpu_computes_in_bfloat16


def sixteen_bits() -> torch.autocast:
    """Compute in bfloat16 where the processor does."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_computes_in_bfloat16())


class Progress:
    """Prints the running means of losses, the pace and the time left, every hundred steps."""

    def __init__(self, name: str, first: int, steps: int):
        """`first`: the step at which this run begins."""
        self.name, self.first, self.steps = name, first, steps
        self.means: dict[str, float] = {}
        self.begun = time.time()

    def step(self, step: int, losses: Mapping[str, torch.Tensor], rows: int) -> None:
        """Count one step of so many rows, numbered from 0."""
        for name, value in losses.items():
            self.means[name] = 0.98 * self.means.get(name, value.item()) + 0.02 * value.item()
        done = step + 1
        if done % 100 == 0 or done == self.steps:
            each = (time.time() - self.begun) / (done - self.first)
            means = " ".join(f"{name} {value:.3f}" for name, value in self.means.items())
            left = f"{rows / each:.0f}/s, {each * (self.steps - done):.0f} s left"
            print(f"{self.name} {done:,}/{self.steps:,} {means}, {left}", flush=True)


def digest(module: torch.nn.Module) -> str:
    """Hash the weights of a module."""
    found = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        found.update(name.encode() + weight.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


class Checkpoint:
    """A file with the state of some parts of a training, written every five minutes."""

    EVERY = 300

    def __init__(self, path: Path, **parts: torch.nn.Module | torch.optim.Optimizer):
        self.path, self.parts = path, parts
        self.saved = time.time()

    def load(self, most: int | None = None, **expected: int | str) -> int | None:
        """Restore the parts; returns the step that they were saved at.

        None where there is no file, it was written with another `expected`, or after more than `most` steps.
        """
        kept = torch.load(self.path, weights_only=True) if self.path.exists() else None
        if kept is None or (most is not None and kept["step"] > most):
            return None
        if any(kept.get(name) != value for name, value in expected.items()):
            return None
        for name, part in self.parts.items():
            part.load_state_dict(kept[name])
        return kept["step"]

    def save(self, step: int, **expected: int | str) -> None:
        """Write the state of all parts after so many steps."""
        kept = {name: part.state_dict() for name, part in self.parts.items()}
        part_path = self.path.with_suffix(".partial")
        torch.save(kept | expected | {"step": step}, part_path)
        part_path.replace(self.path)
        self.saved = time.time()

    def is_due(self) -> bool:
        """Tell whether five minutes have passed since the last one."""
        return time.time() - self.saved > self.EVERY
