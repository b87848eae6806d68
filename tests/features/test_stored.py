"""Damage between the header and the end of a shard: noticed row by row, computed again, and said."""

import json
import pickle
import random

import pytest
from safetensors.torch import load_file, save_file

from blip2vqa.features.cache import FeatureStore
from blip2vqa.utils.errors import Failure
from helpers.feature_stores import KEY, digests, fill, metadata_of, same, shards, values

ROW = 12
"""Bytes of one image's features."""


def damage(path, row: int, data: bytes = bytes(ROW)) -> None:
    """Write over one row of a shard of four."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size - (4 - row) * ROW)
        file.write(data)


def as_an_earlier_version_wrote_it(path) -> None:
    metadata = metadata_of(path)
    del metadata["row_checksums"]
    save_file({name: tensor.clone() for name, tensor in load_file(path).items()}, path, metadata)


def test_a_damaged_row_counts_as_missing_and_its_neighbours_do_not(store, caplog):
    names = digests(8)
    fill(store, names)
    first, _ = shards(store)
    held = json.loads(metadata_of(first)["digests"])
    damage(first, 1)
    again = FeatureStore(store.root, KEY)
    assert again.missing(names) == [held[1]]
    assert caplog.messages == [f"{first}: damaged (checksum): 1 image is computed again"]
    with pytest.raises(KeyError, match="1 of 8"):
        again.open(names)
    fill(again, [held[1]])
    assert same(again.open(names).of(names), values(names))
    # The sound copy counts from now on, wherever it stands.
    assert FeatureStore(store.root, KEY).missing(names) == [] and len(caplog.messages) == 1


def test_no_damage_of_any_byte_is_used(store):
    """Of 300 damages at random places, header and index included, none comes back as a feature."""
    names, draw = digests(4), random.Random(0)
    fill(store, names)
    [path] = shards(store)
    sound, given = path.read_bytes(), values(names)
    for _ in range(300):
        data, start = bytearray(sound), draw.randrange(len(sound))
        end = min(len(data), start + draw.choice((1, 8, 64)))
        data[start:end] = draw.choice((bytes(end - start), draw.randbytes(end - start)))
        path.write_bytes(data[:start] if draw.random() < 0.1 else data)
        damaged = FeatureStore(store.root, KEY)
        there = [name for name in names if name not in damaged.missing(names)]
        rows = [names.index(name) for name in there]
        assert not there or same(damaged.open(there).of(there), given[rows])


def test_damage_while_a_run_reads_ends_it(store):
    names = digests(4)
    fill(store, names)
    features = store.open(names)
    [path] = shards(store)
    damage(path, 2)
    for mapped in (features, pickle.loads(pickle.dumps(features))):
        with pytest.raises(Failure, match=r"damaged since this run opened it \(checksum of row 2\)"):
            mapped.of(names)
        assert same(mapped.of([names[0]]), values([names[0]]))


def test_a_shard_of_an_earlier_version_is_trusted_once(store, caplog):
    names = digests(4)
    fill(store, names)
    [path] = shards(store)
    as_an_earlier_version_wrote_it(path)
    before = FeatureStore(store.root, KEY)
    assert before.missing(names) == [] and same(before.open(names).of(names), values(names))
    beside = path.with_suffix(".sums")
    assert beside.exists() and not caplog.messages
    damage(path, 0)
    assert FeatureStore(store.root, KEY).missing(names) == [names[0]]
    beside.write_bytes(b"\xff")
    assert FeatureStore(store.root, KEY).missing(names) == names
    store.evict(0)
    assert not path.exists() and not beside.exists()
