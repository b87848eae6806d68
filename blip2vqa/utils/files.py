"""Writes output files whole or not at all: under a temporary name in the same folder, which is then renamed.

A temporary name says which process it is of: `.NAME.HOST-PID-RANDOM.tmp`. What a killed process has left is removed by the
next one that writes into the folder. Also tells files from pipes, and reads no more of one than a limit.
"""

import json
import os
import platform
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from blip2vqa.utils.errors import InputError, find_os_error

CLOCKS = 3600.0
"""Seconds by which the clocks of this machine and of the disk's may differ."""


def _find_host() -> str:
    """Name this machine, and the space of its process ids: containers may share the machine's name, and not its processes."""
    space = ""
    with suppress(OSError):  # Linux alone has it
        space = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()):08x}"


_HOST = _find_host()
_OURS = re.compile(rf"\..*\.{_HOST}-(\d+)-[0-9a-f]{{8}}\.tmp")
_swept: set[Path] = set()


def partial_path(output_path: str | Path) -> Path:
    """Name the journal of a run that is not finished: `RESULTS.csv` → `RESULTS.csv.partial`."""
    return Path(output_path).with_name(Path(output_path).name + ".partial")


def temporary_path(path: Path) -> Path:
    """Name a file or folder beside `path` to write into, and remove what dead processes have left there."""
    if path.absolute() not in _swept:
        _swept.add(path.absolute())
        _sweep(path)
    # Cut, since a file's name may have 255 bytes, and that of `path` may have them already.
    return path.with_name(f".{path.name[:40]}.{_HOST}-{os.getpid()}-{uuid4().hex[:8]}.tmp")


def _sweep(path: Path) -> None:
    """Remove temporary files and folders beside `path` whose process on this machine is dead.

    Those of other machines, which may share the folder, stay: whether their processes live cannot be told from here.
    """
    former = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,7}})\.tmp")  # as versions 0.1 and 0.2 name them
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            found = _OURS.fullmatch(entry.name) or former.fullmatch(entry.name)
            with suppress(OSError):  # gone meanwhile, or not ours to remove
                if found and not _lives(int(found[1]), entry.stat(follow_symlinks=False).st_mtime):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    else:
                        os.unlink(entry.path)


def _lives(number: int, written: float) -> bool:
    """Tell whether the process that wrote something at that time lives, and not another that has its number by now."""
    import psutil  # takes a while, and most runs find nothing to ask about

    try:
        process = psutil.Process(number)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + CLOCKS
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Make an OSError of any library's failure to write in the block; it names the cause, and the file or else `path`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        found = find_os_error(error, str(path))
        if found is None:
            raise
        raise found from error


def is_endless(path: str | Path) -> bool:
    """Whether a path is that of a named pipe, a socket or a device: reading it may wait for ever, or have no end."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def read_limited(path: str | Path, max_bytes: int) -> bytes:
    """Read a file that is no larger than this. Raises `OSError`, and `ValueError` for another, and for a pipe or a device."""
    if is_endless(path):
        raise ValueError("a pipe, a socket or a device, not a file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(max_bytes + 1) if size <= max_bytes else b""
    if max(size, len(data)) > max_bytes:
        raise ValueError(f"larger than {max_bytes:,} bytes")
    return data


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, making its folder if need be.

    A reader sees the old file or the new one, never half of one, even when the process is killed midway. A device or a pipe is
    written to as it is. Raises OSError, which names `path`, when it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)
            return
        temporary = temporary_path(path)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # without it a power cut may keep the rename and lose the contents
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are; otherwise as `write_bytes_atomic`."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | Path, data: object) -> None:
    """Write `data` as indented JSON, keys in their own order; otherwise as `write_text_atomic`."""
    write_text_atomic(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder` to write into; it takes the name `folder` when the block ends. Parents are made.

    Whatever is raised inside, nothing is left. Raises OSError when the folder cannot be made or written, or its name is taken
    by then.
    """
    temporary = temporary_path(folder)
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
            yield temporary
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder among the system's temporary files, for the time of the block."""
    folder = temporary_path(Path(tempfile.gettempdir()) / "blip2vqa")
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def flush_to_disk(file: Path) -> None:
    """Wait until the contents of a file are on the disk; without it a power cut may keep the name and lose the contents."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())
