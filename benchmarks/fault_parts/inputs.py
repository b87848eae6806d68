"""Reads damaged files, and judges what comes of each: what is right, a refusal in one line, or a fault."""

import io
import json
import os
import random
import re
import resource
import shutil
import signal
from contextlib import redirect_stderr
from pathlib import Path

from fault_parts.readers import READERS, Reader

TOGETHER = 100
"""Damaged inputs that one process reads."""
SECONDS, BYTES = 20, 4 << 30
"""Limits of one input: time, and memory beyond that of the process."""
LONGEST = 1010
"""Characters of a line that a person is to read."""
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""What a terminal does not show, or obeys."""


def read_damaged(work: Path, kind: str, which: str, seed: int) -> dict[str, str]:
    """Damage and read a file of this kind; `which`: a number, or `N-` for the N-th hundred. Returns outcomes by name."""
    numbers = (
        range(int(which[:-1]) * TOGETHER, (int(which[:-1]) + 1) * TOGETHER) if which.endswith("-") else [int(which)]
    )
    left, outcomes = list(numbers), {}
    report = work.parent / "outcomes"
    while left:
        report.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            try:
                _read_all(work, kind, left, seed, report)
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        lines = report.read_text().splitlines() if report.exists() else []
        outcomes |= {f"inputs/{kind}/{number}": outcome for number, outcome in map(json.loads, lines)}
        left = left[len(lines) :]
        if left:  # it died over the next
            what = f"takes more than {SECONDS} seconds" if code == -signal.SIGALRM else f"ends the process with {code}"
            outcomes[f"inputs/{kind}/{left.pop(0)}"] = what
    return outcomes


def _read_all(work: Path, kind: str, numbers: list[int], seed: int, report: Path) -> None:
    """Read one damaged input after the other, and note each outcome at once."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    import datasets
    import torch

    torch.set_num_threads(1)
    datasets.disable_caching()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, resource.RLIM_INFINITY))
    reader, materials = READERS[kind], work.parents[1] / "materials"
    good = work.parent / "good"
    for folder in (good, work):
        shutil.rmtree(folder, ignore_errors=True)
    good.mkdir(parents=True)
    reader.make(materials, good)
    with report.open("w") as file:
        right = None
        for number in [-1, *numbers]:  # first undamaged
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(good, work)
            os.chdir(work)
            signal.alarm(SECONDS)
            if number < 0:
                right = _outcome(reader, work)
                continue
            _damage(reader, work, random.Random(f"{seed} {kind} {number}"))
            found = _outcome(reader, work)
            signal.alarm(0)
            file.write(json.dumps([number, _judge(reader, found, right)]) + "\n")
            file.flush()


def _damage(reader: Reader, work: Path, rng: random.Random) -> None:
    choices = [
        (path, change) for pattern, change in sorted(reader.damage.items()) for path in sorted(work.glob(pattern))
    ]
    path, change = rng.choice([choice for choice in choices if choice[0].stat().st_size])
    path.write_bytes(change(path.read_bytes(), rng))


def _outcome(reader: Reader, work: Path) -> tuple[str, object]:
    """Return ("read", what), ("refused", what a script prints then) or ("fails", the exception)."""
    from blip2vqa.data.images import BadImage
    from blip2vqa.utils.console import run_script
    from blip2vqa.utils.errors import InputError

    values, said = [], io.StringIO()

    def main() -> None:
        try:
            values.append(reader.read(work))
        except BadImage as error:  # which goes into a table
            raise InputError(error.reason) from error

    try:
        with redirect_stderr(said):
            run_script(main)
    except SystemExit:
        return "refused", [
            line
            for line in said.getvalue().splitlines()
            if line and not re.match(r"WARNING |  |\S+: \w*Warning: ", line)
        ]
    except BaseException as error:
        return "fails", f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({_last_place(error)})"
    return "read", values[0] if reader.noticed else repr(values[0])


def _last_place(error: BaseException) -> str:
    """Name the last line of the package that an exception came through."""
    places = []
    trace = error.__traceback__
    while trace:
        name = trace.tb_frame.f_code.co_filename
        if "blip2vqa" in Path(name).parts:
            places.append(f"{Path(name).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places[-1] if places else "outside the package"


def _judge(reader: Reader, found: tuple[str, object], right: tuple[str, object]) -> str:
    """Name the outcome: `right`, `other` (read, as something else that nothing could tell), `refused`, or what is wrong."""
    kind, what = found
    if kind == "fails":
        return what
    if kind == "refused":
        unclear = [
            line for line in what if not line.startswith("error: ") or len(line) > LONGEST or HIDDEN.search(line)
        ]
        return "is refused in silence" if not what else f"is refused by {unclear[0][:200]!r}" if unclear else "refused"
    if what == right[1]:
        return "right"
    if not reader.noticed:
        return "other"
    same = isinstance(what, dict) and all(right[1].get(name) == value for name, value in what.items())
    return "right" if same else "damage passes unnoticed"
