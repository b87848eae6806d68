"""What the ViT and the Q-Former must say of photographs while they learn, by heads that are thrown away afterwards.

At each place: what the ImageNet network says there, and the mean color. Of the whole picture: what the network says of it, how
much of each color the product has, the catalogue's facts, and which of the batch's names is its own (contrast as in CLIP,
https://arxiv.org/abs/2103.00020).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from blip2vqa.generate.rows import Item
from photo_base import teacher

WIDTH = 256
"""Width of ViT, Q-Former and language model."""
BINS = 4
"""Steps of red, of green and of blue in a histogram of colors."""
FACTS = ("object", "category", "color", "material", "pattern", "shape")
"""Kinds of facts that must be said."""


@dataclass
class Targets:
    """What the heads learn from, a row for each photograph."""

    maps: np.ndarray
    """float16 [pictures, places, teacher.DEPTH], of the network at each place."""
    pooled: np.ndarray
    """float16 [pictures, teacher.WIDTH], of the network over the whole picture."""
    classes: np.ndarray
    """float16 [pictures, teacher.CLASSES], the network's logits."""
    facts: torch.Tensor
    """int64 [pictures, kinds], number of the fact among those of its kind; -100 where it is not known."""
    names: torch.Tensor
    """float32 [pictures, teacher.NAME_WIDTH], the encoded name of the product; zeros where it is not known."""

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Take the targets of some photographs, in float32."""
        read = {name: torch.from_numpy(getattr(self, name)[rows]).float() for name in ("maps", "pooled", "classes")}
        return read | {"facts": self.facts[rows], "names": self.names[rows]}


def count_facts(items: Sequence[Item | None]) -> dict[str, list[str]]:
    """List the values of each kind of facts that occurs, in alphabetical order."""
    known = {kind: sorted({item.facts[kind] for item in items if item and kind in item.facts}) for kind in FACTS}
    return {kind: found for kind, found in known.items() if found}


def encode_facts(items: Sequence[Item | None], values: dict[str, list[str]]) -> torch.Tensor:
    """Number the facts of each item: int64 [items, kinds]; -100 where one is not known."""
    number = {kind: {value: place for place, value in enumerate(found)} for kind, found in values.items()}
    known = [item.facts if item else {} for item in items]
    return torch.tensor([[number[kind].get(facts.get(kind), -100) for kind in values] for facts in known])


def measure_colors(images: torch.Tensor, places: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure the colors of pictures, [batch, 3, size, size] of 0 to 1.

    Returns the mean color of each place, [batch, places², 3], and the share of each color, in `BINS`³ steps, among the pixels
    that are not nearly white, [batch, BINS³].
    """
    means = F.adaptive_avg_pool2d(images, places).flatten(2).transpose(1, 2)
    small = F.avg_pool2d(images, 2)
    steps = (small * (BINS - 1e-3)).long()
    numbers = ((steps[:, 0] * BINS + steps[:, 1]) * BINS + steps[:, 2]).flatten(1)
    product = (small.amin(1) < 0.92).float().flatten(1)
    shares = torch.zeros(len(images), BINS**3).scatter_add_(1, numbers, product)
    return means, shares / shares.sum(1, keepdim=True).clamp(min=1)


class Heads(nn.Module):
    """A linear layer for each thing to be said."""

    def __init__(self, values: dict[str, list[str]]):
        """`values`: those of each kind of facts."""
        super().__init__()
        self.sizes = [len(found) for found in values.values()]
        self.maps = nn.Linear(WIDTH, teacher.DEPTH)
        self.colors = nn.Linear(WIDTH, 3)
        self.pooled = nn.Linear(2 * WIDTH, teacher.WIDTH)
        self.classes = nn.Linear(2 * WIDTH, teacher.CLASSES)
        self.shares = nn.Linear(2 * WIDTH, BINS**3)
        self.facts = nn.Linear(2 * WIDTH, sum(self.sizes))
        self.names = nn.Linear(2 * WIDTH, teacher.NAME_WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))

    def losses(
        self, places: torch.Tensor, whole: torch.Tensor, targets: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Compute the weighted losses by name; places are [batch, places, WIDTH], the whole [batch, 2 * WIDTH]."""
        losses = {
            "maps": F.mse_loss(self.maps(places).float(), targets["maps"]),
            "colors": 20 * F.mse_loss(self.colors(places).float(), targets["colors"]),
            "pooled": 1 - F.cosine_similarity(self.pooled(whole).float(), targets["pooled"]).mean(),
            "classes": 0.2 * F.cross_entropy(self.classes(whole).float(), targets["classes"].softmax(1)),
            "shares": 0.3 * F.cross_entropy(self.shares(whole).float(), targets["shares"]),
        }
        logits = self.facts(whole).float().split(self.sizes, 1)
        known = [(one, facts) for one, facts in zip(logits, targets["facts"].T, strict=True) if (facts >= 0).any()]
        if known:
            losses["facts"] = 0.15 * sum(F.cross_entropy(one, facts, label_smoothing=0.1) for one, facts in known)
        named = targets["names"].abs().sum(1) > 0
        if named.sum() > 1:
            own, names = F.normalize(self.names(whole).float()[named], dim=1), targets["names"][named]
            similarity = (own @ names.T).float() * self.logit_scale.exp()
            right = torch.arange(len(own))
            losses["names"] = 0.1 * (F.cross_entropy(similarity, right) + F.cross_entropy(similarity.T, right))
        return losses

    def predict_facts(self, whole: torch.Tensor) -> torch.Tensor:
        """Choose the likeliest value of each kind: int64 [batch, kinds]."""
        return torch.stack([one.argmax(1) for one in self.facts(whole).split(self.sizes, 1)], 1)
