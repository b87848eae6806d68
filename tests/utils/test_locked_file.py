"""A file that is added to by one process at a time; more of it is tested by the ledger and the journal."""

import pytest

from blip2vqa.utils.errors import InputError, MachineError
from blip2vqa.utils.locked_file import LockedFile
from helpers.full_disk import full_disk


def test_one_at_a_time_may_add(tmp_path):
    first = LockedFile(tmp_path / "new" / "a")
    with pytest.raises(InputError, match="another run is writing to it"):
        LockedFile(first.path)
    first.append(b"one\ntwo\n")
    first.append(b"three\n", after=4)
    assert first.read() == b"one\nthree\n" and first.size == 10
    first.close()
    second = LockedFile(first.path)
    assert second.read() == b"one\nthree\n"
    second.close(remove=True)
    second.close()
    assert not first.path.exists()


def test_a_full_disk_leaves_what_was_there(tmp_path):
    file = LockedFile(tmp_path / "a")
    file.append(b"one\n")
    with full_disk(6), pytest.raises(MachineError, match=r"a: cannot be written: File too large"):
        file.append(b"two\n")
    assert file.read() == b"one\n"
    file.close()


def test_a_file_that_took_its_name_is_not_removed(tmp_path):
    file = LockedFile(tmp_path / "a")
    (tmp_path / "b").write_text("another")
    (tmp_path / "b").replace(file.path)
    file.close(remove=True)
    assert file.path.read_text() == "another"
