"""Commands that are killed, run on failing disks, or run twice at once: do they go on to the same results?"""

import errno
import hashlib
import json
import random
import re
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from fault_parts.jobs import ENVIRONMENT, JOBS, Job
from fault_parts.running import Ended, Process, count_changes, die_before, fail_from, limit_files, wait

HELD, MISSED = "held", "missed"
"""Outcomes beside what went wrong, in words; missed: the command had ended before the fault came."""
TRIES = 4
MOMENT = re.compile(rb'"(time|seconds|seconds_per_question|peak_memory|peak_memory_bytes)": [^,}\n]+')


@dataclass(frozen=True)
class Reference:
    """What an uninterrupted run leaves."""

    code: int
    seconds: float
    changes: int
    """Operations that change files."""
    files: dict[str, str]
    """Path → SHA-256."""


class Workbench:
    """A folder in which one command after the other runs, each from the same beginnings."""

    def __init__(self, scratch: Path, worker: str, chat: str | None = None):
        self.scratch, self.worker, self.chat = scratch, worker, chat
        self.work, self.repo = scratch / worker / "work", scratch / "hub" / "user" / worker
        self.work.parent.mkdir(exist_ok=True)

    def start(self, job: Job, more: str = "", interfere=None, rank: int = 0) -> list[Process]:
        """Start the command; `interfere` with the process of this rank."""
        words = shlex.split(f"{job.command} {more}".replace("WORKER", self.worker).replace("CHAT", self.chat or "CHAT"))
        port = str(_free_port())
        begun = []
        for number in range(job.processes):
            ranks = {
                "RANK": number,
                "LOCAL_RANK": number,
                "WORLD_SIZE": job.processes,
                "LOCAL_WORLD_SIZE": job.processes,
            }
            places = {name: str(value) for name, value in ranks.items()} | {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            environment = ENVIRONMENT | (places if job.processes > 1 else {})
            begun.append(Process(words, self.work, environment, interfere if number == rank else None))
        return begun

    def run(self, job: Job, more: str = "", interfere=None, rank: int = 0) -> list[Ended]:
        """Run the command to its end."""
        return wait(self.start(job, more, interfere, rank), together=True)

    def reset(self, job: Job) -> None:
        """Begin anew."""
        for folder in (self.work, self.repo):
            shutil.rmtree(folder, ignore_errors=True)
        (self.work / "scratch").mkdir(parents=True)
        for command in job.before:
            self.run(Job(command))

    def reference(self, name: str) -> Reference:
        """Return what an uninterrupted run of a job leaves; it is run if no worker has done so."""
        job, known = JOBS[name], self.scratch / "references" / f"{name}.json"
        if not known.exists():
            self.reset(job)
            report = self.scratch / self.worker / "changes"
            report.unlink(missing_ok=True)
            ended = self.run(job, interfere=partial(count_changes, self.work, report))[0]
            if _shouted(ended) or ended.code != job.code:
                raise RuntimeError(f"{name} fails undisturbed: {ended.code} {ended.err[-700:]}")
            changes = int(report.read_text() or 0) if report.exists() else 0
            found = Reference(ended.code, ended.seconds, changes, self.files(job))
            known.parent.mkdir(exist_ok=True)
            known.write_text(json.dumps(asdict(found)))
        return Reference(**json.loads(known.read_text()))

    def files(self, job: Job) -> dict[str, str]:
        """Return the digest of each file that the command has written."""
        found = {}
        for folder in (self.work, self.repo) if job.hub else (self.work,):
            for path in sorted(folder.rglob("*")):
                place = str(path.relative_to(folder))
                if path.is_file() and not any(place == name or place.startswith(f"{name}/") for name in job.ignored):
                    found[place] = hashlib.sha256(self._comparable(path)).hexdigest()
        return found

    def _comparable(self, path: Path) -> bytes:
        """Read a file without what is of this moment: the worker's name, the time, the order in which answers arrived."""
        content = MOMENT.sub(b"", path.read_bytes().replace(self.worker.encode(), b"WORKER"))
        return b"".join(sorted(content.splitlines(keepends=True))) if path.name.endswith("responses.jsonl") else content

    def go_on(self, name: str) -> str:
        """Give the same command again, as it asks for, and compare with the reference; returns the outcome."""
        job, reference, more = JOBS[name], self.reference(name), ""
        for _ in range(TRIES):
            ended = self.run(job, more)[0]
            if ended.code == reference.code:
                break
            if job.go_on and not more and job.go_on.split()[0] in ended.err:
                more = job.go_on
            elif more and "leave the flag out" in ended.err:
                more = ""
            elif ended.code == 2 and any(text in ended.err for text in job.finished):
                break
            else:
                return f"does not go on: exit code {ended.code}: {_last(ended)}"
        else:
            return f"asks for one thing and another: {_last(ended)}"
        found = self.files(job)
        differing = sorted(
            path for path in found.keys() | reference.files if found.get(path) != reference.files.get(path)
        )
        said = [
            f"{path} {'is left over' if path not in reference.files else 'is missing' if path not in found else 'differs'}"
            for path in differing
        ]
        return f"{', '.join(said[:6])}; it ended with {_last(ended)!r}" if said else HELD

    # The parts. Each takes a job's name and which trial of it, and returns the outcome.

    def kill(self, name: str, which: str, rng: random.Random) -> str:
        """Kill it at `moment-N`, or before `operation-N`, and go on."""
        job, reference = JOBS[name], self.reference(name)
        self.reset(job)
        rank = rng.randrange(job.processes)
        if which.startswith("operation"):
            ended = self.run(job, interfere=partial(die_before, self.work, int(which.split("-")[1])), rank=rank)
        else:
            begun = self.start(job)
            time.sleep(rng.uniform(0, reference.seconds))
            for process in begun:
                process.kill()
            ended = wait(begun)
        return self.go_on(name) if any(one.code == -9 for one in ended) else MISSED

    def fail(self, name: str, which: str, rng: random.Random) -> str:
        """Run it on a disk that is full or read-only in one way or another, mend the disk, and go on."""
        job, reference = JOBS[name], self.reference(name)
        self.reset(job)
        kind, number = which.split("-")
        interfere, mounted = None, False
        if kind == "full":
            interfere = partial(fail_from, self.work, 1 + rng.randrange(reference.changes or 1), errno.ENOSPC)
        elif kind == "readonly":
            first = 1 if number == "0" else 1 + rng.randrange(reference.changes or 1)
            interfere = partial(fail_from, self.work, first, errno.EROFS)
        elif kind == "size":
            # At least 2 KiB, since the file that holds what the command says is limited, too.
            interfere = partial(limit_files, int(2 ** rng.uniform(11, 20)))
        elif kind == "tmpfs":
            mounted = _mount("-t", "tmpfs", "-o", f"size={int(2 ** rng.uniform(2, 10))}k", "tmpfs", self.work)
        elif kind == "mount":
            mounted = _mount("--bind", self.work, self.work) and _mount("-o", "remount,ro,bind", self.work)
        if kind in ("tmpfs", "mount") and not mounted:
            return MISSED
        try:
            if kind == "tmpfs":
                (self.work / "scratch").mkdir()
                if any(self.run(Job(command))[0].code for command in job.before):
                    return MISSED
            ended = self.run(job, interfere=interfere, rank=rng.randrange(job.processes))
            wrong = _unclear(job, ended, (1,), reference.code)
            if mounted:
                _mount("-o", "remount,size=1g" if kind == "tmpfs" else "remount,rw,bind", self.work)
            return wrong[0] if wrong else self.go_on(name)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", self.work], check=False)

    def run_twice(self, name: str, which: str, rng: random.Random) -> str:
        """Run it twice at once, and go on."""
        job, reference = JOBS[name], self.reference(name)
        self.reset(job)
        first = self.start(job)
        time.sleep(rng.uniform(0, reference.seconds / 2) if int(which.split("-")[1]) else 0)
        ended = wait([*first, *self.start(job)])
        wrong = _unclear(job, ended, (1, 2), reference.code)
        return wrong[0] if wrong else self.go_on(name)


def _unclear(job: Job, ended: list[Ended], codes: tuple[int, ...], right: int) -> list[str]:
    """Describe the processes that neither did their work nor ended with one of these codes and one to three lines why.

    Of a launch the main process speaks for all.
    """
    found = []
    for number, one in enumerate(ended):
        said = [line for line in one.err.splitlines() if line.startswith("error: ")]
        explained = len(said) < 4 and (said or number % job.processes)
        if _shouted(one) or not (one.code == right or (one.code in codes and explained)):
            found.append(f"exit code {one.code}: {_last(one)}")
    return found


def _shouted(ended: Ended) -> bool:
    return "Traceback (most recent call last)" in ended.err or "Traceback (most recent call last)" in ended.out


def _last(ended: Ended) -> str:
    lines = [line for line in ended.err.splitlines() if line.strip()] or ["nothing said"]
    return f"{'traceback, ' * _shouted(ended)}{lines[-1][:300]}"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _mount(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode == 0
