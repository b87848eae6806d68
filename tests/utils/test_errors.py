"""Failures of files and disks are found behind whatever a library raises, and told from wrong input."""

import errno

import pytest
import torch
from safetensors.torch import save_file

from blip2vqa.utils.errors import InputError, MachineError, file_error, find_os_error
from helpers.full_disk import full_disk


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 1), (errno.EROFS, 1), (errno.EFBIG, 1), (errno.EACCES, 1), (errno.ENOTDIR, 2), (errno.EISDIR, 2)],
)
def test_a_machine_at_fault_has_another_exit_code_than_a_wrong_path(number, code):
    error = file_error("out.csv: cannot be written", OSError(number, "because"), "make room")
    assert error.problems == ["out.csv: cannot be written: because; make room"]
    assert error.exit_code == code and isinstance(error, InputError)
    assert isinstance(error, MachineError) == (code == 1)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"x" * 9999),
        lambda path: save_file({"a": torch.zeros(9999)}, path),
        lambda path: torch.save({"a": torch.zeros(9999)}, path),
    ],
    ids=["python", "safetensors", "torch"],
)
def test_the_cause_is_found_whichever_library_writes(write, tmp_path):
    with full_disk(500), pytest.raises(Exception) as caught:
        write(tmp_path / "file")
    found = find_os_error(caught.value, tmp_path / "file")
    assert found.errno in (errno.EFBIG, errno.EIO) and found.filename == tmp_path / "file"


def test_a_cause_further_back_counts_and_a_mere_try_does_not():
    for number, expected in ((errno.ENOSPC, errno.ENOSPC), (errno.ENOENT, None)):
        try:
            try:
                raise OSError(number, "first")
            except OSError:
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            found = find_os_error(error)
        assert (found and found.errno) == expected
    assert find_os_error(RuntimeError("shapes do not fit")) is None
