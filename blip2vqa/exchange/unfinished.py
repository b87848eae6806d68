"""Lets a command that makes a folder in several steps go on when it was stopped, and keeps a second process from it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2vqa.adapters.files.adapter import check_output
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.locked_file import LockedFile


def note_of(folder: Path) -> Path:
    """Name the file that stands beside a folder until it is finished, and says with which settings it is made."""
    return folder.with_name(f"{folder.name}.unfinished.json")


@contextmanager
def making(folder: Path, settings: dict) -> Iterator[bool]:
    """Hold the making of a folder in the block; yields whether an earlier run of the same settings has begun it.

    Raises `InputError` for a folder that is finished, was begun with other settings, or is made by another process now.
    """
    note, written = note_of(folder), json.dumps(settings, indent=2, default=str).encode()
    if not note.exists():
        check_output(folder)
    file = LockedFile(note)
    try:
        begun = folder.exists()
        if begun and not file.size:  # another process has finished it since
            check_output(folder)
        if begun and file.read() != written:
            raise InputError(
                f"--output {folder}: begun with other settings, which {note} names; repeat that command to finish it, "
                "or remove both, or choose another name"
            )
        if not begun:
            file.append(written, after=0, sync=True)
        yield begun
    except BaseException:
        file.close(remove=not folder.exists() or not file.size)
        raise
    file.close(remove=True)
