"""An adapter's folder: read under any name, its layers renamed without a number changed, written whole or not at all."""

import pytest
import torch

from blip2vqa.adapters.files.adapter import PREFIX, read_adapter, save_adapter
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter


@pytest.fixture
def adapter(tiny_opt, tmp_path):
    return read_adapter(random_adapter(tiny_opt, tmp_path / "a", 0, rank=4), "mine")


def test_renaming_changes_names_alone(adapter):
    names = {module: module.removeprefix("language_model.") for module in adapter.modules}
    made = adapter.renamed(names)
    assert made.modules == tuple(names.values()) and made.config.target_modules == set(names.values())
    for old, new in names.items():
        assert all(torch.equal(one, other) for one, other in zip(adapter.factors(old), made.factors(new), strict=True))
    assert adapter.modules == tuple(names) and made.manifest == adapter.manifest


def test_weights_that_leave_memory_are_read_again(adapter):
    before = adapter.weights
    adapter.forget_weights()
    assert adapter.weights is not before and all(torch.equal(before[key], adapter.weights[key]) for key in before)


def test_what_is_saved_is_read_back(adapter, tmp_path):
    save_adapter(tmp_path / "b", adapter.config, adapter.weights, {"task": "vqa"})
    again = read_adapter(tmp_path / "b")
    assert again.digest == adapter.digest and again.name == str(tmp_path / "b")
    assert again.manifest == {"format": 1, "task": "vqa"}
    assert all(key.startswith(PREFIX) for key in again.weights)


def test_a_folder_that_cannot_be_written_leaves_nothing(adapter, tmp_path, monkeypatch):
    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr("blip2vqa.adapters.files.adapter.write_manifest", full)
    with pytest.raises(InputError, match=r"--output .*b: cannot be written: disk full"):
        save_adapter(tmp_path / "b", adapter.config, adapter.weights, {})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(InputError, match="is already there"):
        save_adapter(tmp_path / "a", adapter.config, adapter.weights, {})
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file, and no folder"):
        save_adapter(tmp_path / "file" / "b", adapter.config, adapter.weights, {})
