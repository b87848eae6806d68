"""The one exception for what the user can mend: scripts print its lines and exit with code 2, without a traceback."""

from collections.abc import Callable
from typing import Any


class InputError(Exception):
    """Wrong input or arguments. Each problem is one line: what, which value, what to do."""

    def __init__(self, *problems: str):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def collect_errors(problems: list[str], step: Callable, *args) -> Any:
    """Run one step of checking: its result, or None with its problems added to those found so far."""
    try:
        return step(*args)
    except InputError as error:
        problems += error.problems
        return None


def raise_all(problems: list[str]) -> None:
    """Raise one `InputError` with every problem found, or return."""
    if problems:
        raise InputError(*problems)
