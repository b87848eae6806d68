"""Answers that were paid for, or took long to compute: kept line by line, never asked for twice."""

import errno
import json
import os
import threading
from pathlib import Path

from blip2vqa.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# File systems that know no locks, some NFS among them: one goes on without.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class Ledger:
    """A file of one JSON object a line, added to and never rewritten: `{"key": ..., ...}`.

    What `add` has written survives a kill and a power cut once it returns. Opened, it drops what a kill left of the last
    line. Threads may share it, processes may not: the second is refused. `with Ledger(path) as ledger:` closes it.

    Raises `InputError`: cannot be opened, in use by another process, or a line that is not one of its own.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._records: dict[str, dict] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be opened for writing: {error.strerror or error}") from error
        try:
            self._keep_others_out()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _keep_others_out(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise InputError(
                    f"{self.path}: another run is writing to it; wait for its end, or name another --output_path"
                ) from error

    def _read(self) -> None:
        self._file.seek(0)
        *lines, rest = self._file.read().split(b"\n")
        for number, line in enumerate(lines, start=1):
            record = _parse(line)
            if record is None:
                raise InputError(
                    f"{self.path}, line {number}: not a JSON object with a key; remove the line, and what it held is asked anew"
                )
            self._records[record["key"]] = record
        if rest:
            last = _parse(rest)
            try:
                if last is None:
                    self._file.truncate(self._size() - len(rest))
                else:  # all of it but the line's end
                    self._append(b"\n")
                    self._records[last["key"]] = last
            except OSError as error:
                raise InputError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def get(self, key: str) -> dict | None:
        """What was added under `key` (the later one, if twice), with the key itself; None if nothing was."""
        with self._lock:
            return self._records.get(key)

    def add(self, key: str, record: dict) -> None:
        """Keep `record`, in JSON's types; see `add_all`."""
        self.add_all({key: record})

    def add_all(self, records: dict[str, dict]) -> None:
        """Keep records by key, in JSON's types; they are on the disk when this returns.

        Raises `InputError` when the disk is full or cannot be written to: the file then ends as it did before.
        """
        records = {key: {"key": key, **record} for key, record in records.items()}
        # Escaped to ASCII: an answer may hold half of a surrogate pair, which UTF-8 cannot say.
        lines = b"".join(json.dumps(record).encode("ascii") + b"\n" for record in records.values())
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                raise InputError(
                    f"{self.path}: cannot be written: {error.strerror or error}; what it holds is kept: make room and run "
                    "the same command again"
                ) from error
            self._records |= records

    def _append(self, line: bytes) -> None:
        size = self._size()
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except BaseException:  # Ctrl-C too: half a line would spoil the next one
            self._file.truncate(size)
            raise

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def records(self) -> list[dict]:
        """All that it holds, in the order added."""
        with self._lock:
            return list(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Close the file and let others in. Twice is harmless."""
        self._file.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _parse(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:  # of JSON, or of UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
