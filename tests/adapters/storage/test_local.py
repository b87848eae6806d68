"""The store and its one-file archives: whole or not at all, one winner for a name, nothing outside, the same bytes twice."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from safetensors.torch import load_file

from blip2vqa import exchange
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage import archive as archive_module
from blip2vqa.adapters.storage import hub, local
from blip2vqa.adapters.storage.archive import export, import_adapter
from blip2vqa.adapters.storage.local import add, default_store, find_in_store, list_store, remove
from blip2vqa.adapters.validation.safety import ADAPTER_FILES, WEIGHTS
from blip2vqa.utils.errors import InputError
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


@pytest.fixture
def own_store(tmp_path, monkeypatch) -> Path:
    """The user's own."""
    monkeypatch.setenv("BLIP2VQA_STORE", str(tmp_path / "own"))
    return tmp_path / "own"


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


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


# --- Archives ---------------------------------------------------------------------------------------------------------


def test_there_and_back(made, tmp_path):
    archive = export(open_adapter(made), tmp_path / "out.zip")
    assert archive == tmp_path / "out.zip" and os.listdir(tmp_path) == ["out.zip"]
    place = import_adapter(archive, store=tmp_path / "store")
    assert place == tmp_path / "store" / "colors" and sorted(os.listdir(place)) == sorted(ADAPTER_FILES)
    assert all((place / name).read_bytes() == (made / name).read_bytes() for name in ADAPTER_FILES)
    assert open_adapter(place).weights.keys() == load_file(made / WEIGHTS).keys()
    assert import_adapter(archive, "other", tmp_path / "store").name == "other"
    before = everything(tmp_path)
    with pytest.raises(InputError, match="there is an adapter colors already"):
        import_adapter(archive, store=tmp_path / "store")
    with pytest.raises(InputError, match="adapter name"):
        import_adapter(archive, "../out", tmp_path / "store")
    assert everything(tmp_path) == before


def test_the_same_adapter_gives_the_same_bytes(made, tmp_path):
    first = export(open_adapter(made), tmp_path / "one.zip")
    copy = shutil.copytree(made, tmp_path / "colors", copy_function=shutil.copyfile)
    os.utime(copy / WEIGHTS, (0, 0))
    assert export(open_adapter(copy), tmp_path / "two.zip").read_bytes() == first.read_bytes()


def test_an_archive_is_an_ordinary_zip_file(made, tmp_path):
    export(open_adapter(made), tmp_path)
    with zipfile.ZipFile(tmp_path / "colors.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*ADAPTER_FILES, "checksums.json"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        listed = json.loads(archive.read("checksums.json"))
    assert listed["format"] == 1 and listed["name"] == "colors" and set(listed["files"]) == set(ADAPTER_FILES)
    assert (tmp_path / "colors.zip").stat().st_mode & 0o777 == 0o644


def test_a_file_is_never_written_over(made, tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export(open_adapter(made), tmp_path / "a.zip")
    pack = archive_module.pack_files

    def another_is_first(folder, name, output):
        (tmp_path / "b.zip").write_text("theirs")
        pack(folder, name, output)

    monkeypatch.setattr(archive_module, "pack_files", another_is_first)
    with pytest.raises(InputError, match="exists already"):
        export(open_adapter(made), tmp_path / "b.zip")
    assert [(tmp_path / name).read_text() for name in ("a.zip", "b.zip")] == ["mine", "theirs"]
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "b.zip"]


def test_an_export_that_fails_leaves_nothing(made, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no/a\.zip: there is no folder .*/no to put it in; make it first"):
        export(open_adapter(made), tmp_path / "no" / "a.zip")

    def pack(folder, name, output):
        output.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_module, "pack_files", pack)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        export(open_adapter(made), tmp_path / "a.zip")
    assert os.listdir(tmp_path) == []


def test_without_hard_links(made, tmp_path, monkeypatch):
    def link(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(archive_module.os, "link", link)
    assert zipfile.is_zipfile(export(open_adapter(made), tmp_path / "a.zip"))
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_full_disk_at_import_leaves_nothing(made, tmp_path, monkeypatch):
    archive = export(open_adapter(made), tmp_path / "a.zip")
    unpack = archive_module.unpack_file

    def full(opened, entry, output=None):
        if output:
            output.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return unpack(opened, entry)

    monkeypatch.setattr(archive_module, "unpack_file", full)
    with pytest.raises(InputError, match=r"store .*: colors cannot be written: No space left on device"):
        import_adapter(archive, store=tmp_path / "store")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_an_archive_that_changes_while_it_is_read(made, tmp_path, monkeypatch):
    """A good one is checked, and another good one unpacked."""
    archive, unpack = export(open_adapter(made), tmp_path / "a.zip"), archive_module.unpack_file
    (shutil.copytree(made, tmp_path / "colors") / "README.md").write_text("another")
    other = zipfile.ZipFile(export(open_adapter(tmp_path / "colors"), tmp_path / "b.zip"))
    before = everything(tmp_path)

    def swapped(opened, entry, output=None):
        return unpack(other, other.getinfo(entry.filename), output) if output else unpack(opened, entry)

    monkeypatch.setattr(archive_module, "unpack_file", swapped)
    with pytest.raises(InputError, match=r"a\.zip: README\.md changed while it was read"):
        import_adapter(archive, store=tmp_path / "store")
    assert everything(tmp_path) == before


# --- Names on the Hub -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x", "no adapter", "me/x y", "a/b/c", "../up", "me/", "x@main", "me/x\ny"])
def test_what_a_name_on_the_hub_looks_like(name, made, tmp_path):
    says = r"no valid name on the Hub, which is USER/NAME of letters, digits, '-', '_' and '\.'$"
    calls = [lambda: exchange.pull(name, store=tmp_path / "store")]
    if name not in ("x", "x@main"):  # may be published among one's own, and is asked for at a revision
        calls += [lambda: hub.push(open_adapter(made), name), lambda: hub.check_push(name)]
    for call in calls:
        with pytest.raises(InputError, match=says) as raised:
            call()
        assert "folder" not in str(raised.value) and "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == []
