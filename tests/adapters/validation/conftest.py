"""A good adapter, copies of it that are spoiled, and proof that nothing of these is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from blip2vqa.adapters.files import adapter as adapter_module
from helpers.family_bases import random_adapter
from helpers.malformed_adapters import CONFIGS, FOLDERS
from helpers.malformed_manifests import MANIFESTS
from helpers.malformed_weights import TENSORS

SPOILED = CONFIGS | TENSORS | FOLDERS | MANIFESTS


@pytest.fixture(scope="session")
def good(tmp_path_factory, tiny_opt) -> Path:
    """What every malformed adapter is made of; its metrics are there, too."""
    folder = random_adapter(tiny_opt, tmp_path_factory.mktemp("good") / "good", seed=0, task="vqa", roles=["q"])
    (folder / "metrics.json").write_text(
        json.dumps({"adapter": {"accuracy": 0.5}, "blind": {"accuracy": float("nan")}})
    )
    return folder


@pytest.fixture
def spoil(good, tmp_path):
    """Makes a malformed adapter by its name."""

    def spoil(name: str) -> Path:
        folder = tmp_path / "bad" / "adapter"
        shutil.copytree(good, folder)
        SPOILED[name].make(folder)
        return folder

    return spoil


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Until an adapter is found to be safe, no library is handed its files."""

    def refuse(*args, **kwargs):
        raise AssertionError("loaded before it was found to be safe")

    for place, name in ((torch, "load"), (adapter_module, "load_file"), (adapter_module.LoraConfig, "from_pretrained")):
        monkeypatch.setattr(place, name, refuse)
