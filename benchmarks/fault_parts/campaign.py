"""Plans the trials, shares them out over processes, keeps what came of each, and counts."""

import json
import random
import sys
import time
from argparse import Namespace
from collections import Counter, defaultdict
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fault_parts.inputs import READERS, TOGETHER, read_damaged
from fault_parts.jobs import JOBS
from fault_parts.preparing import prepare, side_by_side
from fault_parts.trials import HELD, MISSED, Workbench

DISKS = ("full", "readonly", "size", "tmpfs", "mount")
METHODS = {"kills": "kill", "disks": "fail", "pairs": "run_twice"}
"""Part → method of `Workbench`."""


class Campaign:
    """All trials of one seed; what is done is kept in a file beside the output, and not done again."""

    def __init__(self, args: Namespace, scratch: Path):
        self.args, self.scratch = args, scratch
        self.begun = time.monotonic()
        self.journal = args.output.with_name(f"{args.output.name}.partial") if args.output else scratch / "journal"
        self.jobs = [name for name in JOBS if self._wanted_within(*(f"{part}/{name}/" for part in METHODS))]

    def run(self) -> dict:
        """Try everything that is left, until time is up; returns the counts."""
        done = {entry["name"] for entry in self._entries()}
        self.chat = prepare(self.scratch, self.jobs)
        self._share(self.jobs, lambda bench, job: bench.reference(job))
        self.planned = self._plan()
        trials = [name for name in self.planned if name not in done]
        random.Random(self.args.seed).shuffle(trials)
        self._share(trials, self._try, self.args.minutes)
        return self._count()

    def finish(self) -> None:
        """Forget what was done, once all of it is."""
        if not set(self.planned) - {entry["name"] for entry in self._entries()}:
            self.journal.unlink(missing_ok=True)

    def _plan(self) -> list[str]:
        """Name all trials. Those of inputs stand for `TOGETHER` inputs, unless one is asked for alone."""
        bench, names = self._bench(0), []
        each = {part: -(-getattr(self.args, part) // len(JOBS)) for part in METHODS}
        for job in self.jobs:
            changes = bench.reference(job).changes
            operations = random.Random(f"{self.args.seed} {job}").sample(
                range(1, changes + 1), min(changes, each["kills"] // 2)
            )
            names += [f"kills/{job}/operation-{number}" for number in sorted(operations)]
            names += [f"kills/{job}/moment-{number}" for number in range(each["kills"] - len(operations))]
            names += [
                f"disks/{job}/{DISKS[number % len(DISKS)]}-{number // len(DISKS)}" for number in range(each["disks"])
            ]
            names += [f"pairs/{job}/pair-{number}" for number in range(each["pairs"])]
        batches = -(-self.args.inputs // len(READERS) // TOGETHER)
        names += [f"inputs/{reader}/{batch}-" for reader in READERS for batch in range(batches)]
        if self.args.only:
            alone = [name for name in self.args.only if name.startswith("inputs/") and name[-1].isdigit()]
            names = [name for name in names if any(fnmatch(name, wanted) for wanted in self.args.only)] + alone
        return [name for name in names if name.split("/")[0] in self.args.parts]

    def _wanted_within(self, *prefixes: str) -> bool:
        """Whether trials whose names begin so are to be run."""
        wanted = [name.split("/")[:2] for name in self.args.only or (f"{part}/*" for part in self.args.parts)]
        given = [prefix.split("/") for prefix in prefixes]
        return any(fnmatch(part, one) and fnmatch(job, other) for part, job, _ in given for one, other in wanted)

    def _bench(self, number: int) -> Workbench:
        return Workbench(self.scratch, f"worker-{number}", self.chat)

    def _share(self, names: list[str], work, minutes: float = float("inf")) -> None:
        """Call `work(bench, name)` for all names, in several processes."""

        def work_off(number: int) -> None:
            own_mounts()
            bench = self._bench(number)
            for name in names[number :: self.args.workers]:
                if time.monotonic() - self.begun > 60 * minutes:
                    return
                work(bench, name)

        if not all(side_by_side(self.args.workers, work_off)):
            sys.exit("a worker failed; what was tried until then is kept")

    def _try(self, bench: Workbench, name: str) -> None:
        part, subject, which = name.split("/")
        begun = time.monotonic()
        if part == "inputs":
            outcomes = read_damaged(bench.work, subject, which, self.args.seed)
        else:
            trial = getattr(bench, METHODS[part])
            outcomes = {name: trial(subject, which, random.Random(f"{self.args.seed} {name}"))}
        outcomes = {one: outcome.replace(f"{self.scratch}/", "") for one, outcome in outcomes.items()}
        counts = Counter(outcome if outcome.split()[0] in KNOWN else "failed" for outcome in outcomes.values())
        failures = {one: outcome for one, outcome in outcomes.items() if outcome.split()[0] not in KNOWN}
        seconds = time.monotonic() - begun
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "counts": counts, "failures": failures, "seconds": seconds}) + "\n")
        for one, outcome in failures.items():
            print(f"{one}: {outcome}", flush=True)

    def _entries(self) -> list[dict]:
        """Read what was done, but for half a last line."""
        if not self.journal.exists():
            return []
        text = self.journal.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.journal.write_text(whole, encoding="utf-8")
        return [json.loads(line) for line in whole.splitlines()]

    def _count(self) -> dict:
        """Count outcomes, by part and by what was tried."""
        of, failures, entries = defaultdict(Counter), {}, self._entries()
        for entry in entries:
            part, subject, _ = entry["name"].split("/")
            of[part, subject].update(entry["counts"])
            failures |= entry["failures"]
        parts = defaultdict(Counter)
        for (part, _), counts in of.items():
            parts[part].update(counts)
        return {
            "seed": self.args.seed,
            "minutes": sum(entry["seconds"] for entry in entries) / self.args.workers / 60,
            "parts": {part: as_row(counts) for part, counts in parts.items()},
            "of": {f"{part}/{subject}": as_row(counts) for (part, subject), counts in sorted(of.items())},
            "failures": [{"name": name, "what": what} for name, what in sorted(failures.items())],
        }


KNOWN = (HELD, MISSED, "refused", "right", "other")
"""Outcomes that are as promised."""


def as_row(counts: Counter) -> dict[str, int]:
    """Return tried, held and failed, and each outcome of inputs by its own name."""
    failed, missed = counts["failed"], counts[MISSED]
    tried = counts.total() - missed
    return {"tried": tried, "held": tried - failed, "failed": failed, **{name: counts[name] for name in KNOWN[1:]}}


def own_mounts() -> None:
    """Let mounts of this process be its own and those of its children; without the right to do so, it has none."""
    import ctypes
    import subprocess

    new_mounts = 0x00020000
    if ctypes.CDLL(None).unshare(new_mounts) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], check=False)


def print_counts(result: dict) -> None:
    """Print the counts and the failures for people."""
    table = Table(title=f"Faults, seed {result['seed']}, {result['minutes']:.0f} minutes")
    for column in ("", "tried", "held", "failed"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in [*result["of"].items(), *((f"all {part}", row) for part, row in result["parts"].items())]:
        table.add_row(name, *(f"{row[column]:,}" for column in ("tried", "held", "failed")))
    Console(highlight=False, width=110).print(table)
    for failure in result["failures"]:
        print(f"{failure['name']}: {failure['what']}")
