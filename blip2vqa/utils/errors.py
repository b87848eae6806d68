"""The exceptions whose lines scripts print, without a traceback: what the user can mend (exit code 2), and what ended a run."""

from collections.abc import Callable
from typing import Any


class InputError(Exception):
    """Says that input or arguments are wrong. Each problem is one line: what, which value, what to do."""

    def __init__(self, *problems: str):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Failure(Exception):
    """Ends a run whose input was right: each line is printed, and `code` is the script's exit code."""

    def __init__(self, *lines: str, code: int = 1):
        self.lines, self.code = list(lines), code
        super().__init__("\n".join(lines))


def collect_errors(problems: list[str], step: Callable, *args) -> Any:
    """Run one step of checking and return its result; on `InputError` add its lines to `problems` and return None."""
    try:
        return step(*args)
    except InputError as error:
        problems += error.problems
        return None


def raise_all(problems: list[str]) -> None:
    """Raise one `InputError` with every problem found; return when there is none."""
    if problems:
        raise InputError(*problems)
