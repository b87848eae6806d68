"""Keep responses that were paid for, or took long to compute, line by line, so that none is asked for twice."""

import errno
import json
import os
import threading
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from blip2vqa.utils.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TRIES = 3  # at opening a file that another run may be removing
# Errors of file systems that have no locks, some NFS among them; the ledger works without.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class Ledger(AbstractContextManager):
    """A file of one JSON object a line, `{"key": ..., ...}`, that is added to and never rewritten.

    A record survives a kill and a power cut once `add` returns; half a last line that a kill left is cut off at the next
    opening. Threads may share a ledger; a second process is refused. An empty file is removed when the ledger is closed.

    Raises `InputError` for a file that cannot be opened, is in use by another process, or has a line that is no record.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._records: dict[str, dict] = {}
        for _ in range(TRIES):
            self._open()
            if self._is_in_place():
                break
            self._file.close()  # another run ended, and removed it, between opening and locking
        else:
            raise InputError(f"{self.path}: is removed again and again; name another --output_path")
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        """Open the file and lock it where the system can. Raises `InputError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be opened for writing: {error.strerror or error}") from error
        self._locked = False
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
            self._locked = True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self._file.close()
                raise InputError(
                    f"{self.path}: another run is writing to it; wait for its end, or name another --output_path"
                ) from error

    def _read(self) -> None:
        self._file.seek(0)
        *lines, rest = self._file.read().split(b"\n")
        if lacks_its_end := _parse(rest) is not None:
            lines.append(rest)
        for number, line in enumerate(lines, start=1):
            record = _parse(line)
            if record is None:
                raise InputError(
                    f"{self.path}, line {number}: not a JSON object with a key; remove the line, and what it held is asked anew"
                )
            self._records[record["key"]] = record
        if lacks_its_end:
            self._write(self._size(), b"\n")
        elif rest:
            self._write(self._size() - len(rest), b"")

    def get(self, key: str) -> dict | None:
        """Return the record that was last added under `key`, with the key itself; None if there is none."""
        with self._lock:
            return self._records.get(key)

    def add(self, records: dict[str, dict]) -> None:
        """Add records by key, in JSON's types; they are on the disk when this returns.

        Raises `InputError` when the disk is full or cannot be written to; the file then ends as it did before.
        """
        records = {key: {"key": key, **record} for key, record in records.items()}
        # Escaped to ASCII, as an answer may hold half of a surrogate pair, which UTF-8 cannot encode.
        lines = b"".join(json.dumps(record).encode("ascii") + b"\n" for record in records.values())
        with self._lock:
            self._write(self._size(), lines)
            self._records |= records

    def _write(self, size: int, lines: bytes) -> None:
        """Cut the file to `size` bytes, and append; where that fails, it is left with `size` bytes."""
        try:
            self._file.truncate(size)
            rest = memoryview(lines)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except BaseException as error:  # Ctrl-C too: half a line would spoil the next one
            self._file.truncate(size)
            if not isinstance(error, OSError):
                raise
            raise InputError(
                f"{self.path}: cannot be written: {error.strerror or error}; what it holds is kept: make room and run "
                "the same command again"
            ) from error

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def records(self) -> list[dict]:
        """Return all records, in the order added."""
        with self._lock:
            return list(self._records.values())

    def close(self) -> None:
        """Close the file and unlock it; an empty one is removed. May be called twice."""
        with self._lock:
            if self._file.closed:
                return
            with suppress(OSError):  # in a folder that is read-only by now; an empty file does no harm
                # Only while it is locked, as another run may else be about to write to it.
                if self._locked and not self._size() and self._is_in_place():
                    self.path.unlink()
            self._file.close()

    def _is_in_place(self) -> bool:
        """Tell whether the open file still is the one of that name."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def __exit__(self, *_) -> None:
        self.close()


def _parse(line: bytes) -> dict | None:
    """Read a line as a record; None for what is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # of JSON, or of UTF-8; lists in lists
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
