"""What an adapter holds, as numbers and as a picture."""

import io
import json

import pytest
import torch
from PIL import Image

from blip2vqa.reporting.norms import _number, draw_norms


def real_size(layers: int = 32) -> dict:
    """A report of opt-2.7b's modules, and of a vision tower's and the projection."""
    torch.manual_seed(0)
    roles = ["q", "k", "v", "o", "up", "down"]
    decoder = {
        "layers": list(range(layers)), "roles": roles, "by_layer": [1.0] * layers, "by_role": [2.0] * 6,
        "cells": (torch.rand(layers, 6) * torch.linspace(0.2, 1, layers)[:, None]).tolist(),
    }  # fmt: skip
    vision = {
        "layers": list(range(39)), "roles": ["qkv", "o", "up", "down"], "by_layer": [1.0] * 39, "by_role": [2.0] * 4,
        "cells": torch.rand(39, 4).mul(0.5).tolist(),
    }  # fmt: skip
    decoder["cells"][5][2], vision["cells"][7][1] = 0.0, None
    single = {"layers": [None], "roles": ["projection"], "cells": [[0.3]], "by_layer": [0.3], "by_role": [0.3]}
    return {
        "language_model.model.decoder.layers": decoder, "vision_model.encoder.layers": vision, "language_projection": single,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"), [(4.0, "4.00"), (123.4, "123"), (0.00123, "0.00123"), (0.0, "0"), (None, "-")]
)
def test_norms_have_three_digits(value, shown):
    assert _number(value) == shown


@pytest.mark.parametrize("stacks", [1, 2, 3])
def test_the_picture_has_a_panel_for_each_stack_and_one_scale(stacks):
    norms = dict(list(real_size().items())[:stacks])
    first = draw_norms({"norms": norms})
    assert Image.open(io.BytesIO(first)).size[0] > 300 * min(stacks, 2)
    brighter = json.loads(json.dumps(norms))
    brighter["language_model.model.decoder.layers"]["cells"][0][0] = 0.9
    assert draw_norms({"norms": brighter}) != first


def test_an_adapter_of_the_projection_alone_is_drawn_too():
    norms = {"language_projection": real_size()["language_projection"]}
    assert Image.open(io.BytesIO(draw_norms({"norms": norms}))).format == "PNG"
