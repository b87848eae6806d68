"""An adapter to keep, pack and publish."""

import json
from pathlib import Path

import pytest

from helpers.family_bases import random_adapter

SCORES = {"adapter": {"accuracy": 0.75, "n": 4}, "blind": {"accuracy": 0.5}, "base": {"accuracy": 0.1}}


@pytest.fixture(scope="session")
def made(tmp_path_factory, tiny_opt) -> Path:
    """An adapter as a run leaves it."""
    folder = random_adapter(tiny_opt, tmp_path_factory.mktemp("made") / "colors", seed=0, task="vqa", roles=["q", "v"])
    (folder / "metrics.json").write_text(json.dumps(SCORES))
    (folder / "run.json").write_text("{}")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "optimizer.pt").write_bytes(b"x")
    return folder
