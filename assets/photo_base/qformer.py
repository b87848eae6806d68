"""Second stage of the photo base: the Q-Former learns to carry what the ViT sees.

The ViT's output for every photograph, as it is and mirrored, is computed once. Each of the 16 query tokens must say what the
heads ask of one cell of a 4 by 4 grid, all together what they ask of the whole picture.
"""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Blip2ForConditionalGeneration

from photo_base.data import Photographs
from photo_base.heads import WIDTH, Heads, Targets, measure_colors
from photo_base.model import GRID
from photo_base.progress import Checkpoint, Progress, digest, sixteen_bits
from photo_base.vision import SIDE, encode_images, to_images


@torch.no_grad()
def compute_vision_outputs(model: nn.Module, pixels: np.ndarray, rows: np.ndarray, name: str, work: Path) -> np.ndarray:
    """Compute the ViT's output of `pixels[rows]` and of their mirrored ones, once: float16 [2, rows, 1 + patches, WIDTH].

    It is kept in `work` under a name and the hash of the ViT's weights; outputs of other weights are deleted.
    """
    path = work / f"{name}-{digest(model)}.npy"
    if not path.exists():
        for old in work.glob(f"{name}-*.npy"):
            old.unlink()
        partial, begun = path.with_suffix(".partial"), time.time()
        found = np.lib.format.open_memmap(partial, "w+", np.float16, (2, len(rows), 1 + SIDE * SIDE, WIDTH))
        for start in range(0, len(rows), 256):
            images = to_images(pixels[rows[start : start + 256]])
            for mirrored, shown in enumerate((images, images.flip(3))):
                with sixteen_bits():
                    found[mirrored, start : start + len(images)] = encode_images(model, shown).half().numpy()
        found.flush()
        partial.replace(path)
        print(
            f"ViT's output of {len(rows):,} photographs and their mirrored ones: {time.time() - begun:.0f} s",
            flush=True,
        )
    return np.load(path, mmap_mode="r")


class CellTargets:
    """Draws what the query tokens must say: the targets of the picture stage, with four patches to a cell."""

    def __init__(self, photographs: Photographs, targets: Targets):
        self.photographs, self.targets = photographs, targets

    def batch(self, rows: np.ndarray, mirrored: bool) -> dict[str, torch.Tensor]:
        """Take the targets of some photographs, all mirrored or none."""
        found = self.targets.batch(rows)
        square = found["maps"].transpose(1, 2).unflatten(2, (SIDE, SIDE))
        images = to_images(self.photographs.pixels[self.photographs.rows[rows]])
        if mirrored:
            square, images = square.flip(3), images.flip(3)
        found["maps"] = F.avg_pool2d(square, SIDE // GRID).flatten(2).transpose(1, 2)
        found["colors"], found["shares"] = measure_colors(images, GRID)
        return found


def run_qformer(model: Blip2ForConditionalGeneration, features: torch.Tensor) -> torch.Tensor:
    """The ViT's output [batch, 1 + patches, WIDTH] → the Q-Former's [batch, QUERIES, WIDTH]."""
    queries = model.query_tokens.expand(len(features), -1, -1)
    return model.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state


def query_losses(queries: torch.Tensor, heads: Heads, targets: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute the losses of the heads from the Q-Former's output, by name."""
    return heads.losses(queries, torch.cat([queries.mean(1), queries.amax(1)], 1), targets)


def train_qformer(
    model: Blip2ForConditionalGeneration, heads: Heads, features: np.ndarray, targets: CellTargets, work: Path,
    epochs: float, batch: int = 128, rate: float = 1e-3, seed: int = 0,
) -> None:  # fmt: skip
    """Train the Q-Former alone on the ViT's output [2, pictures, 1 + patches, WIDTH]; goes on from `work`."""
    weights = [model.query_tokens, *model.qformer.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    batch = min(batch, features.shape[1])
    steps = int(epochs * features.shape[1] / batch)
    checkpoint = Checkpoint(work / "qformer.pt", model=model, heads=heads, optimizer=optimizer)
    expected = {"steps": steps, "start": digest(model)}
    first = checkpoint.load(**expected) or 0
    progress = Progress("Q-Former", first, steps)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 200, (steps - step) / (0.7 * steps), 1)
        rng = np.random.default_rng((seed, 1, step))
        rows, mirrored = np.sort(rng.choice(features.shape[1], batch, replace=False)), rng.random() < 0.5
        with sixteen_bits():
            found = run_qformer(model, torch.from_numpy(features[int(mirrored), rows]).float())
            losses = query_losses(found, heads, targets.batch(rows, mirrored))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        progress.step(step, losses, batch)
        if checkpoint.is_due() or step == steps - 1:
            checkpoint.save(step + 1, **expected)
