"""Runs commands as processes forked from one that has imported everything, and interferes with them."""

import errno
import os
import resource
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120
"""Seconds after which a command counts as hung."""
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "faults.fsync"}
MAKES_ROOM = {"os.remove", "os.rmdir", "os.rename"}
"""What a full disk still allows."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; negative: the signal that ended it."""
    out: str
    err: str
    seconds: float


class Process:
    """`python SCRIPT ARGV …` in a folder of its own, forked from this process.

    `interfere` is called in the new process before the script begins.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        interfere: Callable[[], None] | None = None,
    ):
        self.words, self.begun = words, time.monotonic()
        self.streams = [Path(f"{folder}.{name}.{os.urandom(4).hex()}") for name in ("out", "err")]
        for path in self.streams:
            path.touch()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = self._work(folder, environment, interfere)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def _work(self, folder: Path, environment: dict[str, str], interfere: Callable[[], None] | None) -> int:
        import tempfile

        import transformers.utils.logging
        from huggingface_hub import constants

        os.setpgid(0, 0)
        for number, (name, path) in enumerate(zip(("stdout", "stderr"), self.streams, strict=True), 1):
            file = path.open("w", encoding="utf-8", errors="backslashreplace", buffering=1)
            os.dup2(file.fileno(), number)
            setattr(sys, name, file)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ.update(environment)
        constants.HF_HUB_CACHE = str(folder / "hub-cache")  # read from the environment when it was imported
        tempfile.tempdir = None
        transformers.utils.logging.disable_progress_bar()
        script = ROOT / self.words[0]
        sys.argv = [str(script), *self.words[1:]]
        if interfere:
            interfere()
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return 0

    def kill(self) -> None:
        """End it as a power cut would."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def poll(self) -> Ended | None:
        """Return how it ended, or None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        said = [path.read_text(encoding="utf-8", errors="replace") for path in self.streams]
        for path in self.streams:
            path.unlink()
        return Ended(os.waitstatus_to_exitcode(status), *said, time.monotonic() - self.begun)


def wait(processes: Sequence[Process], seconds: float = LIMIT, together: bool = False) -> list[Ended]:
    """Wait until all have ended, and kill those that are left after `seconds`.

    `together`: processes of one launch, which ends the others as soon as one has failed.
    """
    ended: dict[Process, Ended] = {}
    deadline = time.monotonic() + seconds
    while len(ended) < len(processes):
        for process in processes:
            if process not in ended and (done := process.poll()):
                ended[process] = done
                if together and done.code:
                    deadline = min(deadline, time.monotonic() + (5 if done.code > 0 else 0))
        if time.monotonic() > deadline:
            for process in processes:
                if process not in ended:
                    process.kill()
            deadline = float("inf")
        time.sleep(0.005)
    return [ended[process] for process in processes]


def watch_changes(folder: Path, act: Callable[[int, str, str], None]) -> None:
    """From now on call `act(number, event, path)` before each operation of this process that changes files below `folder`.

    Python's audit events name them, but for those of compiled libraries, which write whole files before a rename.
    """
    real_fsync, number, busy = os.fsync, 0, False

    def fsync(descriptor: int) -> None:
        sys.audit("faults.fsync", descriptor)
        real_fsync(descriptor)

    def hook(event: str, args: tuple) -> None:
        nonlocal number, busy
        if busy or (event not in CHANGES and not (event == "open" and args[2] & WRITING)):
            return
        busy = True
        try:
            path = _place(event, args)
            if path and path.startswith(f"{folder}/"):
                number += 1
                act(number, event, path)
        finally:
            busy = False

    os.fsync = fsync
    sys.addaudithook(hook)


def _place(event: str, args: tuple) -> str | None:
    if event == "faults.fsync" or (event == "open" and isinstance(args[0], int)):
        return os.readlink(f"/proc/self/fd/{args[0]}")
    if not isinstance(args[0], str | bytes | os.PathLike):
        return None
    path = os.fsdecode(args[0])
    inside = args[-1] if event in ("os.remove", "os.mkdir", "os.rmdir") else -1  # a descriptor of the folder it lies in
    return os.path.abspath(os.path.join(os.readlink(f"/proc/self/fd/{inside}"), path) if inside >= 0 else path)


def count_changes(folder: Path, report: Path) -> None:
    """Write to `report` how many operations there were."""
    file = os.open(report, os.O_WRONLY | os.O_CREAT)
    watch_changes(folder, lambda number, event, path: os.pwrite(file, str(number).encode(), 0))


def die_before(folder: Path, which: int) -> None:
    """Be killed before the operation of this number."""

    def act(number: int, event: str, path: str) -> None:
        if number == which:
            os.kill(os.getpid(), signal.SIGKILL)

    watch_changes(folder, act)


def fail_from(folder: Path, which: int, code: int) -> None:
    """Refuse the operation of this number and all later ones, as a full disk (ENOSPC) or a read-only one (EROFS) does."""

    def act(number: int, event: str, path: str) -> None:
        if number >= which and not (code == errno.ENOSPC and event in MAKES_ROOM):
            raise OSError(code, os.strerror(code), path)

    watch_changes(folder, act)


def limit_files(size: int) -> None:
    """Let no file grow beyond `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
