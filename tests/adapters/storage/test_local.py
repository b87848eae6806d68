"""The store: adapters whole or not at all, one winner for a name, nothing outside."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blip2vqa import exchange
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage import local
from blip2vqa.adapters.storage.local import add, default_store, find_in_store, list_store, remove
from blip2vqa.adapters.validation.safety import ADAPTER_FILES, WEIGHTS
from blip2vqa.utils.errors import InputError
from helpers.refusals import everything


@pytest.fixture
def own_store(tmp_path, monkeypatch) -> Path:
    """The user's own."""
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "own"))
    return tmp_path / "own"


def test_where_the_store_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("BLIP2VQA_STORE", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_store() == tmp_path / ".local" / "share" / "blip2vqa" / "adapters"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_store() == tmp_path / "data" / "blip2vqa" / "adapters"
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "mine"))
    assert default_store() == tmp_path / "mine"
    assert list_store() == [] and find_in_store("a") is None and not (tmp_path / "mine").exists()


def test_add_list_open_remove(made, own_store, tiny_opt):
    place = add(made)
    assert place == own_store / "colors" == find_in_store("colors")
    assert sorted(os.listdir(place)) == sorted(ADAPTER_FILES)
    assert all((place / name).read_bytes() == (made / name).read_bytes() for name in ADAPTER_FILES)
    assert place.stat().st_mode & 0o777 == 0o755
    assert open_adapter("colors").folder == place
    (entry,) = list_store()
    assert entry.pop("date").endswith("+00:00")
    assert entry == {
        "name": "colors", "task": "vqa", "base": str(tiny_opt), "rank": 4, "roles": ["q", "v"],
        "score": {"metric": "accuracy", "adapter": 0.75, "blind": 0.5},
        "size": sum((made / name).stat().st_size for name in ADAPTER_FILES), "problem": None,
    }  # fmt: skip
    exchange.add("colors", "again")
    assert [entry["name"] for entry in list_store()] == ["again", "colors"]
    remove("colors")
    assert os.listdir(own_store) == ["again"]


def test_the_date_is_when_the_weights_were_written(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "old")
    os.utime(folder / WEIGHTS, (1_000_000_000, 1_000_000_000))
    add(folder, store=tmp_path / "store")
    assert list_store(tmp_path / "store")[0]["date"] == "2001-09-09T01:46:40+00:00"


@pytest.mark.parametrize(
    "metrics, score",
    [
        ({"adapter": {"cider": 1.5}, "blind": {"cider": 0.5}}, {"metric": "cider", "adapter": 1.5, "blind": 0.5}),
        ({"adapter": {"accuracy": 1, "cider": 2.0}}, {"metric": "accuracy", "adapter": 1, "blind": None}),
        ({"adapter": {"accuracy": float("nan")}}, None), ({"adapter": {"accuracy": "high"}}, None),
        ({"adapter": 3, "blind": []}, None), ({}, None), ([], None),
    ],
)  # fmt: skip
def test_scores_of_all_kinds(metrics, score, made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "one")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    add(folder, store=tmp_path / "store")
    assert list_store(tmp_path / "store")[0]["score"] == score


def test_an_adapter_of_other_tools_is_listed(made, tmp_path, tiny_opt):
    folder = shutil.copytree(made, tmp_path / "other")
    for name in ("blip2vqa.json", "metrics.json", "README.md"):
        (folder / name).unlink()
    add(folder, store=tmp_path / "store")
    (entry,) = list_store(tmp_path / "store")
    assert (entry["task"], entry["base"], entry["score"]) == (None, str(tiny_opt), None)
    assert entry["roles"] == ["q", "k", "v", "o", "up", "down"]


def test_listing_takes_no_model_code(made, tmp_path):
    add(made, store=tmp_path / "store")
    code = (
        "import sys; from blip2vqa.adapters.storage.local import list_store; print(list_store(sys.argv[1])[0]['name']); "
        "assert not {'torch', 'peft', 'transformers'} & sys.modules.keys()"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "colors\n"), ran.stderr


def test_what_is_no_adapter_is_not_listed(made, tmp_path):
    store = tmp_path / "store"
    add(made, store=store)
    (store / "note.txt").write_text("x")
    (store / "link").symlink_to(made)
    (store / ".colors.x.adapter-tmp").mkdir()
    (store / "no name").mkdir()
    assert [(entry["name"], bool(entry["problem"])) for entry in list_store(store)] == [
        ("colors", False),
        ("no name", True),
    ]
    assert find_in_store("link", store) is None and find_in_store("note.txt", store) is None


@pytest.mark.parametrize("name", ["..", "../colors", ".", "", "a/b", "/etc", ".hidden", "colors\n"])
def test_names_never_leave_the_store(name, made, tmp_path):
    store = tmp_path / "store" / "inner"
    add(made, "colors", store)
    shutil.copytree(made, tmp_path / "store" / "colors")
    before = everything(tmp_path)
    assert find_in_store(name, store) is None
    with pytest.raises(InputError, match="adapter name"):
        remove(name, store)
    with pytest.raises(InputError, match="adapter name"):
        add(made, name or ".", store)
    assert everything(tmp_path) == before


def test_names_that_are_taken_or_absent(made, tmp_path):
    store = tmp_path / "store"
    add(made, store=store)
    before = everything(tmp_path)
    with pytest.raises(InputError, match="there is an adapter colors already"):
        add(made, store=store)
    with pytest.raises(InputError, match="holds no adapter colours; it holds colors"):
        remove("colours", store)
    with pytest.raises(InputError, match="holds no adapter colors; it holds none"):
        remove("colors", tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):
        list_store(tmp_path / "none")
    assert everything(tmp_path) == before


def test_a_damaged_adapter_can_be_removed(made, tmp_path):
    place = add(made, store=tmp_path / "store")
    (place / WEIGHTS).write_bytes(b"")
    remove("colors", tmp_path / "store")
    assert os.listdir(tmp_path / "store") == []


def test_a_full_disk_leaves_nothing(made, tmp_path, monkeypatch):
    store = tmp_path / "store"
    add(made, "first", store)
    before = everything(store)

    def copy(source, target):
        Path(target).write_bytes(b"half")
        if Path(source).name == WEIGHTS:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local.shutil, "copyfile", copy)
    with pytest.raises(InputError, match=r"store .*: second cannot be written: No space left on device"):
        add(made, "second", store)
    assert everything(store) == before


def test_an_interruption_leaves_nothing(made, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "flush_to_disk", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add(made, store=tmp_path / "store" / "inner")
    assert os.listdir(tmp_path) == []


def test_what_fails_leaves_the_folders_that_were_there(made, tmp_path):
    (tmp_path / "outer").mkdir()
    for store in (tmp_path / "outer" / "store" / "inner", tmp_path / "outer"):
        with pytest.raises(ZeroDivisionError), local.placing("one", store):
            assert store.is_dir() and 1 / 0
        assert [path.name for path in tmp_path.rglob("*")] == ["outer"]


def test_a_store_that_cannot_be_one(made, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        add(made, store=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


def test_what_a_killed_process_left_is_swept_after_a_day(made, tmp_path):
    store = tmp_path / "store"
    old, young = store / ".a.1.adapter-tmp", store / ".b.2.adapter-tmp"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(b"half")
    os.utime(old, (0, 0))
    assert list_store(store) == []
    add(made, store=store)
    assert sorted(os.listdir(store)) == [young.name, "colors"]


def test_the_one_that_comes_second_is_told(made, tmp_path, monkeypatch):
    """Both have found the name free."""
    store, flush, others = tmp_path / "store", local.flush_to_disk, []

    def another_is_first(file):
        if not others:
            others.append(True)
            others.append(add(made, store=store))
        flush(file)

    monkeypatch.setattr(local, "flush_to_disk", another_is_first)
    with pytest.raises(InputError, match="there is an adapter colors already"):
        add(made, store=store)
    assert os.listdir(store) == ["colors"] and others[1] == store / "colors"


def _race(folder: Path, store: Path, barrier, results) -> None:
    barrier.wait()
    try:
        add(folder, "one", store)
        results.put("added")
    except InputError as error:
        results.put(str(error))


def test_of_processes_that_add_one_name_one_wins(made, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_race, args=(made, tmp_path / "store", barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    said = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert said.count("added") == 1 and all("already" in line for line in said if line != "added"), said
    assert os.listdir(tmp_path / "store") == ["one"]
