"""Pickled weights are converted when that is asked for, as tensors and nothing else, and no code is run."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from blip2vqa.adapters.storage.local import add
from blip2vqa.adapters.validation import pickles
from blip2vqa.adapters.validation.pickles import convert
from helpers import malformed_adapters
from helpers.malformed_adapters import WEIGHTS, canary_of
from helpers.malformed_weights import A, first
from helpers.refusals import everything, refused


@pytest.fixture
def pickle_of(good, tmp_path):
    """The good adapter with its weights, or something else, in a pickle."""

    def pickle_of(held, **options) -> Path:
        folder = shutil.copytree(good, tmp_path / "pickled" / "old")
        torch.save(load_file(folder / WEIGHTS) if held is None else held, folder / "adapter_model.bin", **options)
        (folder / WEIGHTS).unlink()
        return folder

    return pickle_of


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_converted_when_asked(zipped, pickle_of, good, tmp_path):
    folder, store = pickle_of(None, _use_new_zipfile_serialization=zipped), tmp_path / "store"
    refused(lambda: add(folder, "new", store), "--convert_pickle")
    place = add(folder, store=store, convert_pickle=True)
    assert sorted(file.name for file in place.iterdir()) == sorted(file.name for file in good.iterdir())
    expected, found = load_file(good / WEIGHTS), load_file(place / WEIGHTS)
    assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
    assert (folder / "adapter_model.bin").exists() and not (folder / WEIGHTS).exists()


def test_tensors_that_share_memory_are_converted(pickle_of, good, tmp_path):
    weights = load_file(good / WEIGHTS)
    key = first(weights)
    weights[key] = weights[key].T.contiguous().T  # of another order in memory
    twin = key.replace("fc1", "fc2") if "fc1" in key else key
    weights[twin] = weights[twin] if weights[twin].shape != weights[key].shape else weights[key]
    found = load_file(add(pickle_of(weights), store=tmp_path / "store", convert_pickle=True) / WEIGHTS)
    assert all(torch.equal(found[key], weights[key]) for key in weights)


BAD_PICKLES = {
    "code": lambda folder: malformed_adapters.Runs(canary_of(folder)),
    "code-inside": lambda folder: {"a": torch.ones(1), "b": malformed_adapters.Runs(canary_of(folder))},
    "module": lambda folder: torch.nn.Linear(2, 2),
    "list": lambda folder: [torch.ones(1)],
    "number": lambda folder: {"a": 1},
    "nested": lambda folder: {"state_dict": {"a": torch.ones(1)}},
    "keys": lambda folder: {1: torch.ones(1)},
    "sparse": lambda folder: {"a": torch.eye(3).to_sparse()},
    "endless": lambda folder: {"a": torch.ones(1).expand(1 << 40)},
    "complex": lambda folder: {f"a{A}": torch.ones(2, 2, dtype=torch.complex64)},
    "nothing": lambda folder: {},
}


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_what_a_pickle_may_not_hold(name, pickle_of, tmp_path):
    folder, store = pickle_of(BAD_PICKLES[name](tmp_path / "pickled" / "x")), tmp_path / "store"
    store.mkdir()
    refused(lambda: add(folder, "new", store, convert_pickle=True), "adapter")
    assert not everything(store) and not canary_of(tmp_path / "pickled" / "x").exists()


@pytest.mark.parametrize("data", [b"", b"no pickle", b"PK\x03\x04", b"\x80\x02}q\x00.", b"cos\nsystem\n(S'true'\ntR."])
def test_damaged_pickles(data, pickle_of, tmp_path):
    folder = pickle_of(None)
    (folder / "adapter_model.bin").write_bytes(data)
    refused(lambda: add(folder, "new", tmp_path / "store", convert_pickle=True), "adapter")
    assert not everything(tmp_path / "store")


def test_a_pickle_of_code_is_not_read_at_all_with_a_bad_configuration(pickle_of, tmp_path, nothing_is_loaded):
    folder = pickle_of(None)
    malformed_adapters.setting("trust_remote_code", True)(folder)
    refused(lambda: add(folder, "new", tmp_path / "store", convert_pickle=True), "trust_remote_code")


def test_oversize_pickles(pickle_of, tmp_path, monkeypatch):
    folder = pickle_of(None)
    monkeypatch.setattr(pickles, "MAX_WEIGHTS", 1000)
    refused(lambda: convert(folder / "adapter_model.bin", tmp_path / "out", "a"), "at most 1,000")
