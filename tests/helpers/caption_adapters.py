"""Adapters of the embedded base that write captions, and how often its towers encode pictures."""

from pathlib import Path

import pytest
from transformers import Blip2VisionModel

from helpers.family_bases import random_adapter
from helpers.paths import ROOT

BASE = ROOT / "assets" / "tiny-blip2-opt"
SCENES = ROOT / "assets" / "drawings" / "images"
NAMES = ("concise", "detailed", "mine")


def caption_adapters(folder: Path) -> dict[str, str]:
    """Random adapters of the embedded base by style: two that write captions, and one that nothing is known of."""
    known = {"task": "caption", "decoding": {"max_new_tokens": 12}}
    manifests = known | {"prompt": "a photo of"}, known | {"prompt": "A detailed description:"}, {}
    made = zip(NAMES, manifests, strict=True)
    return {name: str(random_adapter(BASE, folder / name, seed, **more)) for seed, (name, more) in enumerate(made)}


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the ViT is given, call by call, from now on."""
    calls, forward = [], Blip2VisionModel.forward

    def count(self, pixel_values, **kwargs):
        calls.append(len(pixel_values))
        return forward(self, pixel_values=pixel_values, **kwargs)

    monkeypatch.setattr(Blip2VisionModel, "forward", count)
    return calls
