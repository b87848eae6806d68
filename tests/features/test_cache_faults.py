"""Broken shards, full disks and unwritable folders: said, and never a wrong feature."""

import errno
import json
import logging
import os
import resource
import tempfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from blip2vqa.features import cache as store_module
from blip2vqa.features.cache import FeatureStore
from blip2vqa.utils.errors import InputError
from helpers.feature_stores import KEY, digests, fill, in_child, metadata_of, same, shards, values

# Broken shards


def _cut(path, store):
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path, store):
    path.write_bytes(b"")


def _garbage(path, store):
    path.write_bytes(os.urandom(500))


def _end_not_filled_in(path, store):
    data = path.read_bytes()
    path.write_bytes(data[:-12] + bytes(12))


def _digest_flipped(path, store):
    names = json.loads(metadata_of(path)["digests"])
    changed = ("0" if names[1][0] != "0" else "1") + names[1][1:]
    path.write_bytes(path.read_bytes().replace(names[1].encode(), changed.encode()))


def _rewrite(path, tensors, **changes):
    """Other contents, with the checksum that belongs to them."""
    metadata = metadata_of(path)
    [tensor] = tensors.values()
    metadata["checksum"] = store_module.checksum(metadata["digests"], tensor[-1:])
    save_file(tensors, path, metadata | changes)


def _other_shape(path, store):
    _rewrite(path, {"features": torch.zeros(4, 3, 2, dtype=torch.bfloat16)})


def _other_dtype(path, store):
    _rewrite(path, {"features": torch.zeros(4, 2, 3, dtype=torch.float16)})


def _other_tensor(path, store):
    _rewrite(path, {"weight": torch.zeros(4, 2, 3, dtype=torch.bfloat16)})


def _no_images(path, store):
    _rewrite(path, {"features": torch.zeros(0, 2, 3, dtype=torch.bfloat16)})


def _more_images(path, store):
    features = values(json.loads(metadata_of(path)["digests"]))
    _rewrite(path, {"features": torch.cat([features[:1], features])})


def _no_metadata(path, store):
    save_file({"features": torch.zeros(4, 2, 3, dtype=torch.bfloat16)}, path)


def _future_format(path, store):
    names = json.loads(metadata_of(path)["digests"])
    _rewrite(path, {"features": values(names)}, format_version="2")


def _from_another_space(path, store):
    other = FeatureStore(store.root.parent / "other", replace(KEY, weights="cd" * 32))
    fill(other, json.loads(metadata_of(path)["digests"]))
    os.replace(shards(other)[0], path)


def _a_folder(path, store):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "breaking",
    [
        *(_cut, _empty, _garbage, _a_folder, _end_not_filled_in, _digest_flipped, _no_images, _more_images),
        *(_other_shape, _other_dtype, _other_tensor, _no_metadata, _future_format, _from_another_space),
    ],
    ids=lambda function: function.__name__,
)
def test_broken_shards_are_not_used(store, breaking, caplog):
    names = digests(8)
    fill(store, names)
    broken = shards(store)[0]
    lost = json.loads(metadata_of(broken)["digests"])
    breaking(broken, store)
    assert store.missing(names) == lost
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{broken}: not used, and its images are computed again: ")
    assert "\n" not in caplog.messages[0]
    fill(store, lost)
    assert same(store.open(names).of(names), values(names))
    assert len(caplog.messages) == 1  # not said again
    assert broken.exists()


def test_a_rewritten_shard_is_used(store):
    """What the broken ones above are made with breaks nothing by itself."""
    names = digests(4)
    fill(store, names)
    _rewrite(shards(store)[0], {"features": values(names)})
    assert store.missing(names) == []


# Folders and disks


def test_a_full_disk_is_one_line(store, caplog):
    """A real limit, on the size of files: too small for a shard, large enough for space.json."""
    names = digests(2)
    wide = FeatureStore(store.root, replace(KEY, shape=(64, 64)))

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(InputError) as caught, wide.writer() as writer:
            writer.add(names, values(names, wide.key))
        assert caught.value.problems == [
            f"features in {wide.folder}: cannot be written: File too large; "
            "name another folder with --feature_cache, or --feature_cache none"
        ]

    assert in_child(write) == 0
    assert [path.name for path in wide.folder.iterdir()] == ["space.json"]


def test_a_full_disk_in_the_middle_is_tried_once(store, monkeypatch):
    names = digests(12)
    tried = []

    def full(descriptor):
        tried.append(descriptor)
        if len(tried) == 3:  # the first is space.json
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"), store.writer() as writer:
        writer.add(names, values(names))
    assert len(tried) == 3
    assert len(os.listdir(store.folder)) == 2
    assert store.missing(names) == names[4:]


def test_a_full_disk_does_not_hide_what_went_wrong_first(store, monkeypatch, caplog):
    with pytest.raises(RuntimeError, match="out of memory"), store.writer() as writer:
        writer.add(digests(1), values(digests(1)))
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        raise RuntimeError("out of memory")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left" in caplog.messages[0]


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    store = FeatureStore(tmp_path / "file", KEY)
    reason = "Not a directory; name another folder with --feature_cache, or --feature_cache none$"
    with pytest.raises(InputError, match=f"cannot be read: {reason}"):
        store.missing(digests(1))
    with pytest.raises(InputError, match=f"cannot be written: {reason}"), store.writer():
        pytest.fail("not before anything is computed")


def test_a_folder_that_cannot_be_written_to_is_read():
    names = digests(4)

    def work(store):
        if os.getuid() == 0:  # root may write anywhere
            os.setgid(65534)
            os.setuid(65534)
        assert same(store.open(names).of(names), values(names))
        with pytest.raises(InputError, match="Permission denied"), store.writer():
            pytest.fail("not before anything is computed")
        assert store.evict(0) == 0  # and no traceback

    with tempfile.TemporaryDirectory() as root:  # pytest's own folders are closed to other users
        store = FeatureStore(root, KEY)
        fill(store, names)
        for path, mode in ((store.root, 0o755), (shards(store)[0], 0o444), (store.folder, 0o555)):
            path.chmod(mode)
        code = in_child(work, store)
        store.folder.chmod(0o755)
        assert code == 0
        assert len(shards(store)) == 1
