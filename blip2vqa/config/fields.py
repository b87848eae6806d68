"""How an argument is written down: a field with its help line, and what may be wrong with its value."""

from dataclasses import field

QUANTIZATIONS = ("auto", "none", "8bit", "4bit")
DTYPES = ("auto", "bfloat16", "float16", "float32")


def option(default, help: str, *aliases: str, **metadata):
    """A field with its help line, other spellings, and argparse's own keywords such as `choices`."""
    # argparse formats help with %, so a literal one would break --help.
    metadata |= {"help": help.replace("%", "%%"), "aliases": list(aliases)}
    return field(default=default, metadata=metadata)


def check_range(problems: list[str], ok: bool, flag: str, value, must: str) -> None:
    """Add a problem, unless a value is in its range."""
    if not ok:
        problems.append(f"--{flag}: {value!r} is out of range; it must be {must}")
