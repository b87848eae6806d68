"""Keep responses that were paid for, or took long to compute, line by line, so that none is asked for twice."""

import json
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from blip2vqa.utils.errors import InputError, file_error
from blip2vqa.utils.locked_file import LockedFile


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
        try:
            self._file = LockedFile(path)
        except OSError as error:
            raise file_error(f"{self.path}: cannot be opened for writing", error) from error
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
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
            self._file.append(b"\n", sync=True)
        elif rest:
            self._file.append(b"", after=self._file.size - len(rest), sync=True)

    def get(self, key: str) -> dict | None:
        """Return the record that was last added under `key`, with the key itself; None if there is none."""
        with self._lock:
            return self._records.get(key)

    def add(self, records: dict[str, dict]) -> None:
        """Add records by key, in JSON's types; they are on the disk when this returns.

        Raises `MachineError` when the disk is full or cannot be written to; the file then ends as it did before.
        """
        records = {key: {"key": key, **record} for key, record in records.items()}
        # Escaped to ASCII, as an answer may hold half of a surrogate pair, which UTF-8 cannot encode.
        lines = b"".join(json.dumps(record).encode("ascii") + b"\n" for record in records.values())
        with self._lock:
            self._file.append(lines, sync=True)
            self._records |= records

    def records(self) -> list[dict]:
        """Return all records, in the order added."""
        with self._lock:
            return list(self._records.values())

    def close(self) -> None:
        """Close the file and unlock it; an empty one is removed. May be called twice."""
        with self._lock:
            if not self._file.closed:
                # Only while it is locked, as another run may else be about to write to it.
                self._file.close(remove=self._file.locked and not self._file.size)

    def __exit__(self, *_) -> None:
        self.close()


def _parse(line: bytes) -> dict | None:
    """Read a line as a record; None for what is none."""
    try:
        record = json.loads(line)
    except ValueError:  # of JSON, or of UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
