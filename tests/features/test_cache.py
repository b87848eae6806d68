"""Features on disk: found again to the bit, never mixed up, and mapped rather than read."""

import json
import os
import pickle
import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from blip2vqa.features import cache as store_module
from blip2vqa.features.cache import FeatureStore
from blip2vqa.features.key import fingerprint
from helpers.feature_stores import KEY, digests, fill, in_child, metadata_of, same, shards, values

# What comes back


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_features_come_back_to_the_bit(store, dtype):
    key = replace(KEY, dtype=dtype)
    store = FeatureStore(store.root, key)
    names = digests(9)
    given = values(names, key)
    given[0, 0] = torch.tensor([float("nan"), -0.0, float("inf")])
    with store.writer() as writer:
        writer.add(names[:3], given[:3])
        writer.add(names[3:], given[3:])
    assert sorted(json.loads(metadata_of(path)["digests"]) for path in shards(store)) == sorted(
        [names[:4], names[4:8], names[8:]]
    )
    features = FeatureStore(store.root, key).open(names)
    assert (features.name, len(features.places)) == ("query_output", 9)
    assert same(features.of(names), given)


def test_order_and_repetition_are_the_callers(store):
    names = digests(6)
    fill(store, names)
    features = store.open([names[5], names[0], names[5]])
    assert len(features.places) == 2
    wanted = [names[5], names[0], names[5], names[5]]
    assert same(features.of(wanted), values(wanted))
    assert features.of([]).shape == (0, 2, 3)
    with pytest.raises(KeyError, match=names[1]):  # there, but not asked for
        features.of([names[1]])


def test_what_is_returned_is_not_the_map(store):
    names = digests(2)
    fill(store, names)
    features = store.open(names)
    taken = features.of(names)
    assert taken.is_contiguous()
    taken.zero_()
    assert same(features.of(names), values(names))


def test_the_writer_keeps_copies(store):
    names = digests(2)
    buffer = values(names)
    with store.writer() as writer:
        writer.add(names, buffer)
        buffer.zero_()
    assert same(store.open(names).of(names), values(names))


def test_missing_in_order_once(store):
    names = digests(8)
    assert store.missing([names[1], names[0], names[1]]) == [names[1], names[0]]
    assert not store.root.exists()  # asking makes nothing
    fill(store, names[2:7])
    assert store.missing([names[7], names[3], names[0], names[7], names[6]]) == [names[7], names[0]]
    assert store.missing([]) == []
    with pytest.raises(KeyError, match="3 of 8 images have no query_output"):
        store.open(names)


def test_an_image_in_two_shards(store):
    names = digests(3)
    fill(store, names)
    fill(store, names)
    assert len(shards(store)) == 2
    features = store.open(names)
    assert len(features.shards) == 1
    assert same(features.of(names), values(names))


def test_large_features_make_small_shards(store, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 2 * 12 + 1)  # an image has 2×3×2 bytes
    fill(store, digests(3))
    assert len(shards(store)) == 2
    monkeypatch.setattr(store_module, "SHARD_BYTES", 1)
    fill(store, digests(3))
    assert len(shards(store)) == 5


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 2, 3), torch.zeros(3, 2, 3, dtype=torch.bfloat16), torch.zeros(2, 3, 2).bfloat16()]
)
def test_wrong_features_are_refused(store, wrong):
    with store.writer() as writer, pytest.raises(ValueError, match="they must be"):
        writer.add(digests(2), wrong)
    assert shards(store) == []


# What they belong to


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "image_embeds"},
        {"weights": "cd" * 32},
        {"settings": {"size": {"height": 8, "width": 8}, "do_resize": False}},
        {"dtype": torch.float16},
        {"shape": (3, 2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_spaces_never_meet(store, change):
    names = digests(2)
    fill(store, names)
    other = FeatureStore(store.root, replace(KEY, **change))
    assert other.missing(names) == names
    fill(other, names)
    assert same(other.open(names).of(names), values(names, other.key))
    assert same(store.open(names).of(names), values(names))
    assert len(list(store.root.iterdir())) == 2


def test_a_key_is_named_by_its_contents(store):
    again = replace(KEY, settings=dict(reversed(KEY.settings.items())))
    assert again.name == KEY.name
    assert KEY.name == "v1-cf3d980ef5516871"  # as earlier versions named it: their features are found again
    fill(store, digests(1))
    written = json.loads((store.folder / "space.json").read_text())
    assert written.pop("about").endswith("Safe to delete.")
    assert written == {
        "format": 1,
        "stage": "query_output",
        "weights": "ab" * 32,
        "settings": KEY.settings,
        "dtype": "bfloat16",
        "shape": [2, 3],
    }


def test_fingerprint():
    state = {"a": torch.arange(4.0).bfloat16(), "b": torch.tensor(3), "c": torch.zeros(2, 0)}
    given = fingerprint(state)
    assert len(given) == 64
    assert fingerprint(dict(reversed(state.items()))) == given
    assert fingerprint(state | {"a": torch.nn.Parameter(torch.arange(8.0).bfloat16()[:4])}) == given
    assert fingerprint(state | {"a": torch.arange(8.0).bfloat16().view(4, 2)[:, 0] / 2}) == given  # not contiguous
    changes = [
        {"a": torch.tensor([-0.0, 1, 2, 3]).bfloat16()},
        {"a": torch.arange(4.0).half()},
        {"a": torch.arange(4.0).bfloat16().view(2, 2)},
        {"a": state["a"].view(torch.int16)},
        {"c": torch.zeros(0, 2)},
        {"d": torch.zeros(0)},
    ]
    assert len({given, *(fingerprint(state | change) for change in changes)}) == len(changes) + 1


# Size


def _mebibytes(file: str, field: str) -> float:
    """Sum of a field of /proc/self/`file`; of smaps, over mapped shards alone."""
    total, counted = 0, file != "smaps"
    for line in Path("/proc/self", file).read_text().splitlines():
        if re.match("[0-9a-f]+-[0-9a-f]+ ", line):
            counted = ".safetensors" in line
        elif counted and line.startswith(f"{field}:"):
            total += int(line.split()[1])
    return total / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it")
def test_features_stay_on_disk(tmp_path):
    key = replace(KEY, dtype=torch.float32, shape=(256, 1024))  # 1 MiB an image
    store = FeatureStore(tmp_path, key)
    names = digests(128)
    with store.writer() as writer:
        for name in names:
            writer.add([name], torch.full((1, *key.shape), float(int(name[:4], 16))))
    assert len(shards(store)) == 2

    def read():
        before = _mebibytes("status", "RssAnon")
        assert store.missing(names) == []
        features = store.open(names)
        taken = features.of([names[100], names[3]])
        assert taken[:, 5, 5].tolist() == [float(int(names[100][:4], 16)), float(int(names[3][:4], 16))]
        assert _mebibytes("smaps", "Size") >= 128
        assert _mebibytes("status", "RssAnon") - before < 16
        assert _mebibytes("smaps", "Rss") < 64  # large pages around what was asked for

    assert in_child(read) == 0


def test_thousands_of_shards_need_few_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_IMAGES", 1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    store = FeatureStore(tmp_path, KEY)
    names = digests(2000)
    given = values(names)
    with store.writer() as writer:
        writer.add(names, given)

    def read():
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, used + 16))
        assert store.missing(names) == []
        features = pickle.loads(pickle.dumps(store.open(names)))
        assert len(features.shards) == 2000
        assert same(features.of(names), given)

    assert in_child(read) == 0
