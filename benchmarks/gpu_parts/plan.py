"""Plans the parts, runs each in a process of its own, and keeps what is done. Imports no torch: it must not hold the card."""

import hashlib
import importlib.metadata
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from blip2vqa.utils.files import write_json_atomic
from blip2vqa.utils.version import __version__
from gpu_parts.worker import POISONED, read, work

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("blip2-opt-2.7b", "blip2-flan-t5-xl", "instructblip-vicuna-7b")
"""The shapes that are measured where none is named, in this order."""
SHAPES = (*MODELS, "blip2-opt-6.7b", "instructblip-flan-t5-xl", "tiny", "tiny-t5", "tiny-instruct-llama")
KINDS = ("right", "fast", "where")
FAMILIES = (
    "blip2-opt", "blip2-t5", "instructblip-llama", "instructblip-t5", "blip-vqa", "blip-caption", "vilt", "dropout",
)  # fmt: skip
RUNS = ("row lengths", "adapters", "run in full", "run in 8bit", "run in 4bit")
COMPILE = ("compile",)
BOTH = ("training", "answering")
STEPS = (*FAMILIES, *RUNS, *COMPILE, *BOTH)
"""The names of all steps: the modules that take them import torch."""
SHORTEST = 10.0
"""Seconds below which no part is begun: libraries alone take some to import."""
SPARE = 5.0
"""Seconds that ending a process and writing the summary may take."""
LOOK = 0.1
"""Seconds between two looks at a process."""
# A forked process need not import again what this one has, and may use the card, which this one never does. Apple's system
# libraries cannot be forked.
_processes = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


@dataclass(frozen=True)
class Part:
    """What one process does."""

    name: str
    kind: str
    module: str
    shape: str | None = None
    only: tuple[str, ...] | None = None
    """Names of the module's steps that it takes; None: all."""
    most: float = 90.0
    """Seconds that one step may take."""
    late: str | None = None
    """Why a step that takes longer is skipped; None: it has failed."""


def parts(kinds: list[str], shapes: list[str], steps: list[str] | None = None, on_cpu: bool = False) -> list[Part]:
    """All parts of these kinds, in the order of what matters; `steps`: with these alone.

    `on_cpu`: a CPU stands in for the card, which hangs in no driver, and has other work at times.
    """
    first, *others = [Part(f"fast-{shape}", "fast", "fast", shape, BOTH, most=120) for shape in shapes]
    found = [
        Part("right", "right", "right", only=FAMILIES),
        Part("right-runs", "right", "right_runs", only=RUNS),
        first,
        Part(f"where-{shapes[0]}", "where", "where", shapes[0], BOTH, most=120),
        Part("right-compile", "right", "right_runs", only=COMPILE, late="could not be compiled"),
        *others,
    ]
    if steps is not None:
        found = [replace(part, only=tuple(step for step in part.only if step in steps)) for part in found]
        found = [part for part in found if part.only]
    patience = 10 if on_cpu else 1
    return [replace(part, most=patience * part.most) for part in found if part.kind in kinds]


def digest() -> str:
    """Digest of the code whose results are kept: the package, the benchmarks and the small models."""
    found = hashlib.sha256()
    for folder in (ROOT / "blip2vqa", ROOT / "benchmarks", ROOT / "tests" / "helpers"):
        for path in sorted(folder.rglob("*.py")):
            found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def _describe(to) -> None:
    from gpu_parts.card import describe

    to.send(describe())


def describe_card(seconds: float) -> dict:
    """`card.describe()` of a process of its own. Raises `RuntimeError` where the card does not answer."""
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=_describe, args=(theirs,))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(seconds) else None
    except EOFError:
        found = None
    process.join(1)
    if found is None:
        process.kill()
        raise RuntimeError("the card does not answer; look at what stands above, and try `nvidia-smi`")
    return found


def made_by(card: dict) -> dict:
    """What results are bound to: others are not kept."""
    return {
        "card": card["name"],
        "torch": importlib.metadata.version("torch"),
        "version": __version__,
        "code": digest(),
    }


@dataclass(frozen=True)
class Done:
    """One step and what came of it."""

    part: Part
    step: str
    outcome: dict


def run(planned: list[Part], output: Path, key: dict, ends: float) -> Iterator[Done]:
    """Take all steps, those done before included, and yield each with its outcome, until `ends`, a time of `time.time`."""
    folder = output / "parts"
    folder.mkdir(parents=True, exist_ok=True)
    for part in planned:
        path = folder / f"{part.name}.json"
        state, only = read(path), part.only and list(part.only)
        if state.get("made_by") != key:
            state = {"made_by": key, "steps": {}}
        if state.get("only") != only or "planned" not in state:
            state |= {"only": only, "planned": None}
        write_json_atomic(path, {name: value for name, value in state.items() if name != "running"})
        try:
            yield from _run_part(part, path, output, ends)
        finally:
            shutil.rmtree(path.with_suffix(".scratch"), ignore_errors=True)


def _run_part(part: Part, path: Path, output: Path, ends: float) -> Iterator[Done]:
    told: set[str] = set()

    def news() -> list[Done]:
        found = [(name, outcome) for name, outcome in read(path)["steps"].items() if name not in told]
        told.update(name for name, _ in found)
        return [Done(part, name, outcome) for name, outcome in found]

    yield from news()
    fruitless = False
    while left(path) and not fruitless and time.time() < ends - SHORTEST:
        before = len(told)
        given = (part.module, part.shape, part.only, path, output, ends, part.most)
        process = _processes.Process(target=work, args=given)
        process.start()
        try:
            while process.is_alive():
                process.join(LOOK)
                yield from news()
                why = _overdue(part, path, ends)
                if why is not None:
                    _end(process)
                    _fail(path, _overdue(part, path, ends) or "", part.late)  # it may have been done at the last moment
        finally:
            _end(process)
        if process.exitcode not in (0, POISONED, -signal.SIGKILL):
            _fail(path, f"its process ended with exit code {process.exitcode}; see {path.with_suffix('.log').name}")
        elif process.exitcode == -signal.SIGKILL and time.time() < ends:
            _fail(path, "its process was killed, perhaps for want of memory")
        yield from news()
        fruitless = len(told) == before or process.exitcode == 0  # it has left what it has no time for


def left(path: Path) -> list[str]:
    """Steps that a part has not taken; before its first start, one that stands for all."""
    state = read(path)
    if state["planned"] is None:
        return ["all"]
    return [name for name in state["planned"] if name not in state["steps"]]


def _overdue(part: Part, path: Path, ends: float) -> str | None:
    """Why the process has to end: "" where all time is up, which is no failure; None where it may go on."""
    now, running = time.time(), read(path).get("running")
    if now >= ends:
        return ""
    if running and now > running["since"] + part.most:
        return f"took longer than {part.most:.0f} s"
    return None


def _fail(path: Path, why: str, late: str | None = None) -> None:
    """Note the running step as failed, so that it is not begun again; without a reason it is to be begun again.

    `late`: as of `Part`; then it is skipped.
    """
    state = read(path)
    running = state.pop("running", None)
    if running and why and running["step"] not in state["steps"]:
        outcome = {"skipped": f"{late}: {why}"} if late else {"failed": why}
        state["steps"][running["step"]] = outcome | {"seconds": time.time() - running["since"]}
    elif not running and why and state["planned"] is None:
        state |= {"planned": ["start"], "steps": {"start": {"failed": why, "seconds": 0.0}}}
    write_json_atomic(path, state)


def _end(process) -> None:
    """End a process, and what it has started."""
    if process.exitcode != 0:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.join()
