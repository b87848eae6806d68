"""How an argument is declared: its default, its line of help, its group in --help, and the range of its values."""

import math
from dataclasses import MISSING, Field, dataclass, field, fields

QUANTIZATIONS = ("auto", "none", "8bit", "4bit")
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Range:
    """The interval that a number must lie in; None leaves a side open. NaN lies in no range."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def problem(self, name: str, value: float) -> list[str]:
        """Return a line that names the value and the range, where the value lies outside; else nothing."""
        return [] if value in self else [f"--{name}: {value!r} is out of range; it must be {self}"]

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:,} to {self.at_most:,}"
        if self.above is not None and self.below not in (None, math.inf):
            return f"between {self.above} and {self.below}, both excluded"
        words = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return ", ".join(f"{word} {limit:,}" for word, limit in words.items() if limit not in (None, math.inf))


class Option(Field):
    """A dataclass field with the range of its values, its group in --help, and whether a command line gives it by place.

    They are attributes and no metadata, because `HfArgumentParser` hands all metadata to argparse.
    """

    __slots__ = ("group", "positional", "range")

    def __init__(self, plain: Field, group: str | None, range: Range, positional: bool = False):
        for name in Field.__slots__:
            setattr(self, name, getattr(plain, name))
        self.group, self.range, self.positional = group, range, positional

    def with_default(self, default) -> "Option":
        """Return the same option with another default."""
        return Option(field(default=default, metadata=self.metadata), self.group, self.range)


def option(
    default,
    help: str,
    *aliases: str,
    group: str | None = None,
    choices=None,
    nargs: str | None = None,
    positional: bool = False,
    **limits: float,
) -> Option:
    """Declare an argument of a dataclass that a script reads.

    `help`: its first sentence is the line of --help, the whole text stands in `--help all`. `aliases`: other spellings of
    the flag. `group`: the heading of --help that this option and those after it stand under. `choices` and `nargs` are
    argparse's. `positional`: whether `parse_command` takes a word without a flag for it. `limits`: `at_least`, `above`,
    `at_most`, `below`, as in `Range`; None is always in range.
    """
    # argparse formats help with %, so a literal one would break it.
    metadata = {"help": help.replace("%", "%%"), "aliases": list(aliases)}
    metadata |= {"choices": list(choices)} if choices else {}
    metadata |= {"nargs": nargs} if nargs else {}
    shared = isinstance(default, list)  # a list may not be a default itself: every instance gets a copy
    plain = field(
        default=MISSING if shared else default,
        default_factory=default.copy if shared else MISSING,
        metadata=metadata,
    )
    return Option(plain, group, Range(**limits), positional)


class Arguments:
    """What the dataclasses of arguments have in common."""

    def missing(self) -> list[str]:
        """Name the options that are not given, and that the command cannot do without."""
        return []

    def check(self) -> list[str]:
        """Name every value that is wrong, one line each; here those outside their range."""
        problems = []
        for declared in fields(self):
            value = getattr(self, declared.name)
            if isinstance(declared, Option) and value is not None:
                problems += declared.range.problem(declared.name, value)
        return problems


class WordArguments(Arguments):
    """Arguments some of which a command line gives by their place, as words without a flag."""

    @classmethod
    def words(cls) -> list[str]:
        """Return the fields that a command line gives by their place; the last may be a list."""
        return [one.name for one in fields(cls) if one.positional]

    @classmethod
    def needed(cls) -> list[str]:
        """Return the fields that a command line must give, words first: those that are empty by default."""
        empty = [one for one in fields(cls) if one.default == "" or one.default_factory is not MISSING]
        return [one.name for one in sorted(empty, key=lambda one: not one.positional)]
