"""One-file archives: whole or not at all, never written over, the same bytes twice."""

import errno
import json
import os
import shutil
import zipfile

import pytest
from safetensors.torch import load_file

from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.storage import archive as archive_module
from blip2vqa.adapters.storage.archive import export, import_adapter
from blip2vqa.adapters.validation.safety import ADAPTER_FILES, WEIGHTS
from blip2vqa.utils.errors import InputError
from helpers.refusals import everything


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
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/a\.zip: cannot be written: "):
        export(open_adapter(made), tmp_path / "file" / "a.zip")

    def pack(folder, name, output):
        output.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_module, "pack_files", pack)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        export(open_adapter(made), tmp_path / "a.zip")
    assert os.listdir(tmp_path) == ["file"]


def test_without_hard_links(made, tmp_path, monkeypatch):
    def link(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(archive_module.os, "link", link)
    assert zipfile.is_zipfile(export(open_adapter(made), tmp_path / "a.zip"))
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_full_disk_at_import_leaves_nothing(made, tmp_path, monkeypatch):
    archive = export(open_adapter(made), tmp_path / "a.zip")

    def full(opened, entry, file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_module, "unpack_file", full)
    with pytest.raises(InputError, match=r"store .*: colors cannot be written: No space left on device"):
        import_adapter(archive, store=tmp_path / "store")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_an_archive_that_changes_while_it_is_read(made, tmp_path, monkeypatch):
    """The checksums are read of a good one, and another good one is unpacked."""
    archive, unpack = export(open_adapter(made), tmp_path / "a.zip"), archive_module.unpack_file
    (shutil.copytree(made, tmp_path / "colors") / "README.md").write_text("another")
    other = zipfile.ZipFile(export(open_adapter(tmp_path / "colors"), tmp_path / "b.zip"))
    before = everything(tmp_path)

    def swapped(opened, entry, file):
        return unpack(other, other.getinfo(entry.filename), file)

    monkeypatch.setattr(archive_module, "unpack_file", swapped)
    with pytest.raises(InputError, match=r"a\.zip: README\.md is not what checksums\.json says"):
        import_adapter(archive, store=tmp_path / "store")
    assert everything(tmp_path) == before
