"""What a refusal says, and what it leaves behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blip2vqa.utils.errors import InputError


def everything(folder: Path) -> dict[str, bytes | int | None]:
    """Every path below a folder, with the bytes of small files and the size of large ones."""
    sizes = {path: path.stat().st_size if path.is_file() else None for path in folder.rglob("*")}
    return {str(path): path.read_bytes() if size and size < 1 << 24 else size for path, size in sizes.items()}


def refused(call: Callable, reason: str) -> list[str]:
    """The lines of the refusal; each stands on one line, and one gives the reason."""
    with pytest.raises(InputError) as raised:
        call()
    lines = raised.value.problems
    assert lines and all(line.isprintable() and len(line) < 600 for line in lines), lines
    assert any(reason in line for line in lines), lines
    return lines
