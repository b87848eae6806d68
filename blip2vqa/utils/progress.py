"""Shows progress: a bar on a terminal or in a notebook; elsewhere a line now and then, with rate and time left."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from blip2vqa.utils.formatting import percent

LINE_SECONDS = 30.0
"""Between two lines, and before the first: what is done sooner prints none."""


def show_progress(iterable: Iterable | None = None, desc: str = "", total: int | None = None, **options):
    """Return tqdm's bar, or an object of the same use that prints lines. `options`: tqdm's; None as `desc` is allowed."""
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        from tqdm.auto import tqdm

        return tqdm(iterable, desc, total, **options)
    return ProgressLines(iterable, desc, total, **options)


class ProgressLines(AbstractContextManager):
    """Stands in for tqdm's bar and prints lines on stderr: nothing is drawn over, so a log file stays readable."""

    def __init__(
        self,
        iterable: Iterable | None = None,
        desc: str = "",
        total: int | None = None,
        *,
        unit: str = "item",
        initial: int = 0,
        disable: bool = False,
        leave: bool = True,
    ):
        """Start counting at `initial`, what was done before. `leave` is tqdm's, and means nothing here: a line stays."""
        self.iterable, self.desc, self.total, self.units, self.disable = iterable, desc, total, _plural(unit), disable
        self.initial = self.done = initial
        self.note = ""
        self.start = self.printed = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Count what was done, and print a line if the last one is long ago."""
        self.done += count
        if not self.disable and time.monotonic() - self.printed >= LINE_SECONDS:
            self.printed = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Set what stands at the end of each line. `refresh` is tqdm's: a line waits for its time in any case."""
        self.note = text

    def line(self) -> str:
        """Describe the state: `encoding images: 1,200 of 5,000 images (24%), 35.1 images/s, 1 min 48 s left`."""
        rate = (self.done - self.initial) / max(time.monotonic() - self.start, 1e-9)
        parts = [f"{self.desc}: {self.done:,} {self.units}", f"{rate:.3g} {self.units}/s"]
        if self.total:
            parts[0] = (
                f"{self.desc}: {self.done:,} of {self.total:,} {self.units} ({percent(self.done / self.total, 0)})"
            )
        if self.total and rate:
            minutes, seconds = divmod(round((self.total - self.done) / rate), 60)
            parts.append(f"{minutes} min {seconds} s left")
        return ", ".join([*parts, self.note] if self.note else parts)

    def write(self, text: str) -> None:
        """Print a line that is no progress, on stdout."""
        print(text, flush=True)

    def close(self) -> None:
        """Do nothing: tqdm's bar is cleared here, but lines stay."""

    def __iter__(self) -> Iterator:
        for item in self.iterable:
            yield item
            self.update()

    def __exit__(self, *error) -> None:
        self.close()


def _plural(noun: str) -> str:
    """Write the plural of a regular English noun: batch → batches, query → queries, day → days."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
