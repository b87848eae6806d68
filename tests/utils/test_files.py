"""Files and folders are written whole or not at all."""

import os
import signal
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from blip2vqa.utils.files import new_folder, temporary_path, write_json_atomic, write_text_atomic
from helpers.feature_stores import in_child
from helpers.full_disk import full_disk


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


def left_behind(path, folder: bool = False):
    """What a process leaves that is killed while it writes `path`."""

    def work():
        temporary = temporary_path(path)
        if folder:
            temporary.mkdir()
            (temporary / "a").write_text("half")
        else:
            temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    before = set(os.listdir(path.parent))
    assert in_child(work) == -signal.SIGKILL
    (name,) = set(os.listdir(path.parent)) - before
    return path.with_name(name)


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path):
    file, folder = left_behind(tmp_path / "a.csv"), left_behind(tmp_path / "b", folder=True)
    number = file.name.split("-")[-2]
    former = tmp_path / f".c.csv.{number}.tmp"  # as version 0.2 names it
    former.write_text("half")
    kept = [
        tmp_path / file.name.replace(f"-{number}-", f"-{os.getpid()}-"),  # lives
        tmp_path / ".a.csv.00000000-7-01234567.tmp",  # another machine's
        tmp_path / ".mine.2024.tmp",
        tmp_path / "a.csv.tmp",
    ]
    for path in kept:
        path.write_text("kept")
    write_text_atomic(tmp_path / "c.csv", "whole")
    assert not any(path.exists() for path in (file, folder, former))
    assert all(path.exists() for path in kept)


def test_a_number_that_another_process_has_by_now_is_no_sign_of_life(tmp_path):
    left = left_behind(tmp_path / "a.csv")
    number = left.name.split("-")[-2]
    again = left.rename(left.with_name(left.name.replace(f"-{number}-", f"-{os.getpid()}-")))
    os.utime(again, (time.time() - 7 * 86400,) * 2)
    write_text_atomic(tmp_path / "b.csv", "whole")
    assert not again.exists()


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("é" * 120 + ".csv")
    write_text_atomic(path, "whole")
    assert path.read_text() == "whole"


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text_atomic(pipe, "said")
    reader.join()
    assert read == ["said"] and pipe.is_fifo()


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    with full_disk(10), pytest.raises(OSError, match="File too large") as caught:
        write_text_atomic(tmp_path / "a.csv", "more than ten bytes")
    assert caught.value.filename == str(tmp_path / "a.csv")
    with (
        full_disk(10),
        pytest.raises(OSError, match="File too large") as caught,
        new_folder(tmp_path / "made") as folder,
    ):
        save_file({"a": torch.zeros(99)}, folder / "weights.safetensors")
    assert caught.value.filename == str(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
