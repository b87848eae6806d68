"""What every step is given, and how it says that it cannot be taken."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Context:
    """Where a step works, and how long it may take."""

    scratch: Path
    """A folder for bases and runs, shared by the steps of a part, and gone afterwards."""
    output: Path
    """The folder that the user named."""
    seconds: float
    """After so many the step is ended."""
    hurried: bool = False
    """Whether that is sooner than a step is given, because all time is up then."""


class Skipped(Exception):
    """A step does not fit this card; the message says why."""


class NoTime(Exception):
    """All time is up before a step has a result worth keeping: it is to be taken when the command is given again."""
