"""Features on disk: found again to the bit, never mixed up, whole or not there, within the limit."""

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import re
import resource
import signal
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from blip2vqa import store as store_module
from blip2vqa.errors import InputError
from blip2vqa.feature_space import Space, fingerprint
from blip2vqa.store import FeatureStore

SPACE = Space("query_output", "ab" * 32, {"size": {"height": 8, "width": 8}, "do_resize": True}, torch.bfloat16, (2, 3))
fork = multiprocessing.get_context("fork")  # a real process, without the seconds of importing torch anew


def digests(count: int, start: int = 0) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(start, start + count)]


def values(names: list[str], space: Space = SPACE) -> torch.Tensor:
    """Features that tell their image: no two alike."""
    rows = [torch.randn(space.shape, generator=torch.Generator().manual_seed(int(name[:12], 16))) for name in names]
    return torch.stack(rows).to(space.dtype)


def fill(store: FeatureStore, names: list[str]) -> None:
    with store.writer() as writer:
        writer.add(names, values(names, store.space))


def shards(store: FeatureStore) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal in shape, dtype and bits, so that NaN and -0.0 count."""
    bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other)]
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(*bits)


def in_child(work, *arguments) -> int:
    """Exit code of a forked process that does `work`: 0 when it returned, 1 when it raised, -9 when it was killed."""
    process = fork.Process(target=work, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture
def store(tmp_path, monkeypatch) -> FeatureStore:
    """An empty store with shards of four images."""
    monkeypatch.setattr(store_module, "SHARD_IMAGES", 4)
    return FeatureStore(tmp_path / "cache", SPACE)


# What comes back


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_features_come_back_to_the_bit(store, dtype):
    space = replace(SPACE, dtype=dtype)
    store = FeatureStore(store.root, space)
    names = digests(9)
    given = values(names, space)
    given[0, 0] = torch.tensor([float("nan"), -0.0, float("inf")])
    with store.writer() as writer:
        writer.add(names[:3], given[:3])
        writer.add(names[3:], given[3:])
    assert sorted(json.loads(_metadata(path)["digests"]) for path in shards(store)) == sorted(
        [names[:4], names[4:8], names[8:]]
    )
    features = FeatureStore(store.root, space).open(names)
    assert (features.name, len(features)) == ("query_output", 9)
    assert same(features.of(names), given)


def test_order_and_repetition_are_the_callers(store):
    names = digests(6)
    fill(store, names)
    features = store.open([names[5], names[0], names[5]])
    assert len(features) == 2
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
    assert len(features.paths) == 1
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
    other = FeatureStore(store.root, replace(SPACE, **change))
    assert other.missing(names) == names
    fill(other, names)
    assert same(other.open(names).of(names), values(names, other.space))
    assert same(store.open(names).of(names), values(names))
    assert len(list(store.root.iterdir())) == 2


def test_a_space_is_named_by_its_contents(store):
    again = replace(SPACE, settings=dict(reversed(SPACE.settings.items())))
    assert again.name == SPACE.name
    assert SPACE.name.startswith("v1-")
    fill(store, digests(1))
    written = json.loads((store.folder / "space.json").read_text())
    assert written.pop("about").endswith("Safe to delete.")
    assert written == {
        "format": 1,
        "stage": "query_output",
        "weights": "ab" * 32,
        "settings": SPACE.settings,
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
    store.evict(10**9)
    assert left.exists()  # another run may be writing it
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
    gone = next(path for path in shards(store) if names[4] in json.loads(_metadata(path)["digests"]))
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
    assert (copy.name, len(copy)) == ("query_output", 9)
    assert same(copy.of(names), values(names))
    loader = DataLoader(names, batch_size=3, num_workers=2, collate_fn=features.of, multiprocessing_context="fork")
    assert same(torch.cat(list(loader)), values(names))
    shards(store)[0].unlink()
    with pytest.raises(InputError, match="deleted by another run"):
        pickle.loads(data)


# Broken shards


def _metadata(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


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
    names = json.loads(_metadata(path)["digests"])
    changed = ("0" if names[1][0] != "0" else "1") + names[1][1:]
    path.write_bytes(path.read_bytes().replace(names[1].encode(), changed.encode()))


def _rewrite(path, tensors, **changes):
    """Other contents, with the checksum that belongs to them."""
    metadata = _metadata(path)
    [tensor] = tensors.values()
    metadata["checksum"] = store_module._checksum(metadata["digests"], tensor[-1:])
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
    features = values(json.loads(_metadata(path)["digests"]))
    _rewrite(path, {"features": torch.cat([features[:1], features])})


def _no_metadata(path, store):
    save_file({"features": torch.zeros(4, 2, 3, dtype=torch.bfloat16)}, path)


def _future_format(path, store):
    names = json.loads(_metadata(path)["digests"])
    _rewrite(path, {"features": values(names)}, format_version="2")


def _from_another_space(path, store):
    other = FeatureStore(store.root.parent / "other", replace(SPACE, weights="cd" * 32))
    fill(other, json.loads(_metadata(path)["digests"]))
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
    lost = json.loads(_metadata(broken)["digests"])
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


# Eviction


def _aged(store: FeatureStore, names: list[str], age: int) -> Path:
    """A new shard of these images, last used `age` hours ago."""
    before = shards(store)
    fill(store, names)
    [path] = set(shards(store)) - set(before)
    os.utime(path, (time.time() - age * 3600,) * 2)
    return path


def test_least_recently_used_goes_first_over_all_spaces(store):
    other = FeatureStore(store.root, replace(SPACE, weights="cd" * 32))
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


# Folders and disks


def test_a_full_disk_is_one_line(store, caplog):
    """A real limit, on the size of files: too small for a shard, large enough for space.json."""
    names = digests(2)
    wide = FeatureStore(store.root, replace(SPACE, shape=(64, 64)))

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(InputError) as caught, wide.writer() as writer:
            writer.add(names, values(names, wide.space))
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
    store = FeatureStore(tmp_path / "file", SPACE)
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
        store = FeatureStore(root, SPACE)
        fill(store, names)
        for path, mode in ((store.root, 0o755), (shards(store)[0], 0o444), (store.folder, 0o555)):
            path.chmod(mode)
        code = in_child(work, store)
        store.folder.chmod(0o755)
        assert code == 0
        assert len(shards(store)) == 1


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
    space = replace(SPACE, dtype=torch.float32, shape=(256, 1024))  # 1 MiB an image
    store = FeatureStore(tmp_path, space)
    names = digests(128)
    with store.writer() as writer:
        for name in names:
            writer.add([name], torch.full((1, *space.shape), float(int(name[:4], 16))))
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
    store = FeatureStore(tmp_path, SPACE)
    names = digests(2000)
    given = values(names)
    with store.writer() as writer:
        writer.add(names, given)

    def read():
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 16, used + 16))
        assert store.missing(names) == []
        features = pickle.loads(pickle.dumps(store.open(names)))
        assert len(features.paths) == 2000
        assert same(features.of(names), given)

    assert in_child(read) == 0
