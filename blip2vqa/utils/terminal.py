"""Texts of strangers on a terminal: what is no letter, such as the signs that clear the screen, is written as an escape."""

import logging
import re
import sys
import unicodedata
import warnings

LONGEST = 1000
"""Characters of a line; a stranger's column name may have millions."""
_UNSEEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, marks that turn the direction of writing, halves of pairs, ends of lines and the like."""
_JOINERS = "\u200c\u200d"
"""Of those, what Persian, Indian scripts and emoji are written with."""
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_python_format = warnings.formatwarning
_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")


def one_line(text: object) -> str:
    """Write a text in one line that does nothing to a terminal: what is not seen becomes an escape, such as \\x1b.

    What is longer than `LONGEST` is cut off.
    """
    line = _escaped(str(text)[: LONGEST + 1])
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 2]} …"


def some_lines(text: object) -> str:
    """Write a text as `one_line` does, keeping its line breaks and tabs."""
    return _escaped(str(text), kept="\t\n")


def half_pair(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no file can hold as UTF-8."""
    return _HALF_PAIR.search(text) is not None


def readable_name(name: str) -> str:
    """Write the name of a file, as Python has it, in UTF-8: bytes that are none become escapes, such as caf\\xe9.jpg."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if half_pair(name) else name


def name_on_disk(name: str) -> str:
    """Return the name of the file that `readable_name` has written as `name`."""
    return _BYTE.sub(lambda match: chr(0xDC00 + int(match[1], 16)), name)


def guard_terminal(level: int) -> None:
    """Log from this level on, and make log lines and warnings plain; what a stream cannot write becomes an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    warnings.formatwarning = _format_warning


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = one_line(record.message)
        return super().formatMessage(record)


def _format_warning(*described, **line) -> str:
    return some_lines(_python_format(*described, **line))


def _escaped(text: str, kept: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode("ascii")
        if unicodedata.category(letter) in _UNSEEN and letter not in _JOINERS + kept
        else letter
        for letter in text
    )
