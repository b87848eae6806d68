"""Writes output files whole or not at all: under a temporary name in the same folder, which is then renamed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, making its folder if need be.

    A reader sees the old file or the new one, never half of one, even when the process is killed midway.
    Raises OSError when the folder cannot be written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # without it a power cut may keep the rename and lose the contents
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are; otherwise as `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | Path, data: object) -> None:
    """Write `data` as indented JSON, keys in their own order; otherwise as `write_text_atomic`."""
    write_text_atomic(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(folder: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Yield a temporary folder beside `folder` to write into; it takes the name `folder` when the block ends. Parents are made.

    Whatever is raised inside, nothing is left. Raises OSError when the folder cannot be made, or its name is taken by then.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:12]}{suffix}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush_to_disk(file: Path) -> None:
    """Wait until the contents of a file are on the disk; without it a power cut may keep the name and lose the contents."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())
