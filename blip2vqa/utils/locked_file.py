"""A file that results are added to as they come, by one process at a time."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from blip2vqa.utils.errors import InputError, file_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TRIES = 3  # at opening a file that another run may be removing
# Errors of file systems that have no locks, some NFS among them; it works without.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


class LockedFile:
    """A file that is open to be added to, and locked where the system can: the lock is gone with the process, however it ends.

    Raises OSError for a file that cannot be opened, `InputError` for one in use by another process.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        for _ in range(TRIES):
            self._open()
            if self._is_in_place():
                return
            self._file.close()  # another run ended, and removed it, between opening and locking
        raise InputError(f"{self.path}: is removed again and again; name another --output_path")

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b", buffering=0)
        self.locked = False
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.locked = True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                self._file.close()
                raise InputError(
                    f"{self.path}: another run is writing to it; wait for its end, or name another --output_path"
                ) from error

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def size(self) -> int:
        """Return its length in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def read(self) -> bytes:
        """Return all that it holds."""
        self._file.seek(0)
        return self._file.read()

    def append(self, data: bytes, *, after: int | None = None, sync: bool = False) -> None:
        """Cut the file to `after` bytes, by default leave it as it is, and add `data`; with `sync` it is on the disk then.

        Raises `MachineError` when the disk is full or cannot be written to; the file then ends where it was cut.
        """
        size = self.size if after is None else after
        try:
            if after is not None:
                self._file.truncate(size)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            if sync:
                os.fsync(self._file.fileno())
        except BaseException as error:  # Ctrl-C too: half a line would spoil the next one
            with suppress(OSError):
                self._file.truncate(size)
            if not isinstance(error, OSError):
                raise
            remedy = "what it holds is kept: make room and run the same command again"
            raise file_error(f"{self.path}: cannot be written", error, remedy) from error

    def close(self, *, remove: bool = False) -> None:
        """Close and unlock the file; with `remove` it goes, too. May be called twice."""
        if self._file.closed:
            return
        with suppress(OSError):  # in a folder that is read-only by now
            if remove and self._is_in_place():
                if fcntl is None:
                    self._file.close()  # Windows removes no open file
                self.path.unlink()
        self._file.close()

    def _is_in_place(self) -> bool:
        """Tell whether the open file still is the one of that name."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False
