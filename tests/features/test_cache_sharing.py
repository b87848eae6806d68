"""A store in several hands: kills, other processes, eviction."""

import errno
import json
import os
import pickle
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from blip2vqa.features.cache import FeatureStore
from blip2vqa.utils.errors import InputError
from helpers.feature_stores import KEY, digests, fill, fork, in_child, metadata_of, same, shards, values

# Interruptions and other processes


def test_killed_midway_keeps_whole_shards(store):
    names = digests(12)

    def die_in_the_third_shard():
        rename, done = os.replace, []

        def replace_or_die(source, target):
            if str(target).endswith(".safetensors"):
                if len(done) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.append(target)
            rename(source, target)

        os.replace = replace_or_die
        with store.writer() as writer:
            for name in names:
                writer.add([name], values([name]))

    assert in_child(die_in_the_third_shard) == -signal.SIGKILL
    assert len(shards(store)) == 2
    [left] = store.folder.glob(".*.tmp")
    assert store.missing(names) == names[8:]
    fill(store, names[8:])
    assert same(store.open(names).of(names), values(names))
    assert not left.exists()
    left = store.folder / ".features.0123abcd-7-01234567.tmp"  # another machine's, which may be writing it
    left.write_bytes(b"")
    store.evict(10**9)
    assert left.exists()
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    store.evict(10**9)
    assert not left.exists()
    assert len(shards(store)) == 3


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interrupted_keeps_what_was_added(store, interruption):
    names = digests(6)
    with pytest.raises(interruption), store.writer() as writer:
        writer.add(names, values(names))
        raise interruption
    assert store.missing(names) == []


def test_two_processes_write_at_once(store):
    names = digests(60)
    ready = fork.Barrier(2)

    def write(mine):
        with store.writer() as writer:
            ready.wait(30)
            for name in mine:
                writer.add([name], values([name]))

    processes = [fork.Process(target=write, args=(mine,)) for mine in (names[:40], names[20:])]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(shards(store)) == 20
    assert same(store.open(names).of(names), values(names))


def test_shards_that_vanish_are_not_there(store, monkeypatch, caplog):
    names = digests(5)
    fill(store, names)
    listed = os.listdir(store.folder)
    gone = next(path for path in shards(store) if names[4] in json.loads(metadata_of(path)["digests"]))
    gone.unlink()
    monkeypatch.setattr(os, "listdir", lambda folder: listed)
    assert store.missing(names) == [names[4]]
    with pytest.raises(KeyError, match="1 of 5 images"):
        store.open(names)
    assert caplog.messages == []


def test_workers_and_pickles_read_the_same(store):
    names = digests(9)
    fill(store, names)
    features = store.open(names)
    data = pickle.dumps(features)
    assert b"_rebuild_tensor" not in data  # digests and paths, not features
    copy = pickle.loads(data)
    assert (copy.name, len(copy.places)) == ("query_output", 9)
    assert same(copy.of(names), values(names))
    loader = DataLoader(names, batch_size=3, num_workers=2, collate_fn=features.of, multiprocessing_context="fork")
    assert same(torch.cat(list(loader)), values(names))
    shards(store)[0].unlink()
    with pytest.raises(InputError, match="deleted by another run"):
        pickle.loads(data)


# Eviction


def _aged(store: FeatureStore, names: list[str], age: int) -> Path:
    """A new shard of these images, last used `age` hours ago."""
    before = shards(store)
    fill(store, names)
    [path] = set(shards(store)) - set(before)
    os.utime(path, (time.time() - age * 3600,) * 2)
    return path


def test_least_recently_used_goes_first_over_all_spaces(store):
    other = FeatureStore(store.root, replace(KEY, weights="cd" * 32))
    a, b, c = (_aged(store, digests(4, start), age) for start, age in ((0, 1), (4, 4), (8, 2)))
    d = _aged(other, digests(4), 3)
    size = a.stat().st_size
    assert {path.stat().st_size for path in (b, c, d)} == {size}
    assert store.nbytes == other.nbytes == 4 * size
    assert store.evict(4 * size) == 0
    assert store.evict(3 * size) == size
    assert not b.exists()
    store.open(digests(1, 8))  # c is used again
    assert store.evict(2 * size - 1) == 2 * size
    assert [path.exists() for path in (a, c, d)] == [False, True, False]
    assert store.evict(0) == size
    assert store.nbytes == 0
    assert store.missing(digests(12)) == digests(12)


def test_what_a_run_uses_is_kept(store):
    a, b, c = (_aged(store, digests(4, start), age) for start, age in ((0, 9), (4, 8), (8, 7)))
    size = a.stat().st_size
    features = store.open(digests(1))
    os.utime(a, (0, 0))  # or it would be the last to go anyway
    assert store.evict(2 * size, keep=[features]) == size
    assert [path.exists() for path in (a, b, c)] == [True, False, True]
    assert store.evict(0, keep=[features]) == size
    assert [path.exists() for path in (a, b, c)] == [True, False, False]
    assert store.nbytes == size


def test_only_the_stores_own_files_are_deleted(store, tmp_path):
    fill(store, digests(4))
    strangers = [
        store.root / "model.safetensors",
        store.root / "my-model" / f"{uuid.uuid4().hex}.safetensors",
        store.root / f"v2-{'0' * 16}" / f"{uuid.uuid4().hex}.safetensors",  # a newer version's
        store.root / f"v2-{'0' * 16}" / ".x.tmp",
        store.folder / "model.safetensors",
        store.folder / "notes.txt",
    ]
    size = store.nbytes
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"dear")
        os.utime(path, (0, 0))
    assert store.nbytes == size
    assert store.evict(0) == size
    assert [path.read_bytes() for path in strangers] == [b"dear"] * len(strangers)
    assert (store.folder / "space.json").exists()


def test_evicted_by_another_process_stays_readable(store):
    names = digests(8)
    fill(store, names)
    features = store.open(names)
    assert in_child(store.evict, 0) == 0
    assert shards(store) == []
    assert same(features.of(names), values(names))


def test_eviction_survives_what_it_cannot_delete(store, monkeypatch, caplog):
    first, second = _aged(store, digests(4), 2), _aged(store, digests(4, 4), 1)
    size = first.stat().st_size
    unlink = Path.unlink

    def stubborn(path, missing_ok=False):
        if path == first:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")  # another run was faster

    monkeypatch.setattr(Path, "unlink", stubborn)
    assert store.evict(size) == 0
    assert caplog.messages == [f"{first}: cannot be deleted: Permission denied"]
    assert [first.exists(), second.exists()] == [True, False]
