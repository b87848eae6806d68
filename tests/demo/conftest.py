"""Two adapters of the embedded base of drawings, and the demo over them."""

import os

import pytest

from helpers.caption_adapters import BASE
from helpers.demo_server import running
from helpers.family_bases import random_adapter


@pytest.fixture(scope="session")
def two_adapters(tmp_path_factory) -> dict[str, str]:
    """Adapters of random weights by name; one has a card with markup in it."""
    folder = tmp_path_factory.mktemp("two")
    known = {"task": "vqa", "prompt": "Question: {question} Short answer:", "decoding": {"max_new_tokens": 6}}
    scores = {"adapter": {"accuracy": 0.5, "n": 4}, "blind": {"accuracy": 0.25, "n": 4}}
    known["calibration"] = {"slope": 1.0, "intercept": -1.0, "n": 100, "error_before": 0.2, "error_after": 0.1}
    one = random_adapter(BASE, folder / "one", 1, **known, metrics=scores, style="<b>bold</b>")
    return {"one": str(one), "two": str(random_adapter(BASE, folder / "two", 2))}


@pytest.fixture(scope="session")
def demo(two_adapters, tmp_path_factory):
    """The demo as users start it, on a free port; for screenshots to show, `BLIP2VQA_SCREENSHOT_ADAPTERS` may name others."""
    given = os.environ.get("BLIP2VQA_SCREENSHOT_ADAPTERS")
    named = given.split() if given else [f"{name}={path}" for name, path in two_adapters.items()]
    with running(tmp_path_factory.mktemp("demo"), "--lora_model_path", *named, "--dtype", "float32") as demo:
        yield demo
