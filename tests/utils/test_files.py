"""Files and folders are written whole or not at all."""

import os

import pytest

from blip2vqa.utils.files import new_folder, write_json_atomic, write_text_atomic


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.json"
    write_json_atomic(path, {"é": 1})
    assert path.read_bytes() == '{\n  "é": 1\n}\n'.encode()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text_atomic(path, "half")
    assert path.read_bytes() == '{\n  "é": 1\n}\n'.encode()
    assert list(path.parent.iterdir()) == [path]  # no temporary file left


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with new_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("b")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a").read_text() == "b"
    with pytest.raises(RuntimeError), new_folder(tmp_path / "other") as folder:
        (folder / "a").write_text("b")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_does_not_take_a_name_that_is_taken(tmp_path):
    with pytest.raises(OSError), new_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("ours")
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "a").write_text("theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert (tmp_path / "made" / "a").read_text() == "theirs"
