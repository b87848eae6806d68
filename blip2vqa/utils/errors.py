"""The exceptions whose lines scripts print, without a traceback: wrong input ends with code 2, a machine's failure with 1."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Causes that lie in a path as it was given; all others lie in the machine: its disk is full, read-only, broken.
_WRONG_PATH = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EEXIST,
    errno.ENOTEMPTY,
)  # fmt: skip
# Rust, in which safetensors and tokenizers are written, has the cause in its text alone; torch's writer has none.
_IN_RUST = re.compile(r"\(os error (\d+)\)")
_IN_TORCH = re.compile(r"PytorchStreamWriter failed|inline_container|unexpected pos|basic_ios::clear|iostream error")
_ROOM = 2**20  # bytes; a disk with less is full


class InputError(Exception):
    """Says that input or arguments are wrong. Each problem is one line: what, which value, what to do."""

    exit_code = 2

    def __init__(self, *problems: str):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class MachineError(InputError):
    """Says that the machine failed, not the input: a disk is full or read-only."""

    exit_code = 1


def file_error(failure: str, error: OSError, remedy: str = "") -> InputError:
    """Make the error that says in one line what has failed, as in "out.csv: cannot be written", why, and what to do.

    It is a `MachineError`, but an `InputError` where the cause lies in the path that was given.
    """
    kind = InputError if error.errno in _WRONG_PATH else MachineError
    return kind(f"{failure}: {error.strerror or error}{f'; {remedy}' * bool(remedy)}")


def find_os_error(error: BaseException, path: str | Path | None = None) -> OSError | None:
    """Find the failure of a file or disk behind an exception, whichever library raised it; None where it has another cause.

    `path`: what was being written, for libraries that tell neither the file nor the cause.
    """
    seen: BaseException | None = error
    while seen is not None:
        # Of what came before, a file that was not there was only a try.
        if isinstance(seen, OSError) and seen.errno is not None and (seen is error or seen.errno not in _WRONG_PATH):
            return OSError(seen.errno, seen.strerror or os.strerror(seen.errno), seen.filename or path)
        if number := _IN_RUST.search(str(seen)):
            return OSError(int(number[1]), os.strerror(int(number[1])), path)
        if isinstance(seen, RuntimeError) and _IN_TORCH.search(str(seen)):
            return OSError(*_likely_cause(path), path)
        seen = seen.__cause__ or seen.__context__
    return None


def _likely_cause(path: str | Path | None) -> tuple[int, str]:
    """Tell why a file could not be written, where its writer has not said it."""
    folder = Path(path or ".").absolute()
    while not folder.exists():
        folder = folder.parent
    cause = errno.ENOSPC if shutil.disk_usage(folder).free < _ROOM else errno.EIO
    return cause, os.strerror(cause)


def collect_errors(problems: list[str], step: Callable, *args) -> Any:
    """Run one step of checking and return its result; on `InputError` add its lines to `problems` and return None."""
    try:
        return step(*args)
    except InputError as error:
        problems += error.problems
        return None


def raise_all(problems: list[str]) -> None:
    """Raise one `InputError` with every problem found; return when there is none."""
    if problems:
        raise InputError(*problems)
