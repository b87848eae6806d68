"""Labels that tables and charts share: names that fit a width, times, and colours."""

import re
from collections.abc import Sequence

from blip2vqa.utils.formatting import as_text

LABEL_LINES = 3
BLUE, ORANGE, GREY = "#56B4E9", "#E69F00", "#d9d9d9"  # the first two of Okabe and Ito's colour-blind safe palette


def wrap(text: str, width: int) -> str:
    """Break a text into lines of at most `width` characters, after spaces, hyphens, slashes and the like where possible."""
    lines = [""]
    for piece in re.findall(r"[^\s/_+,:-]*[\s/_+,:-]+|[^\s/_+,:-]+", " ".join(text.split())):
        while piece:
            space = width - len(lines[-1])
            if len(piece.rstrip()) <= space:
                lines[-1] += piece
                break
            if not lines[-1]:
                lines[-1], piece = piece[:width], piece[width:]
            lines.append("")
    return "\n".join(line.strip() for line in lines)


def labels(names: Sequence[str], width: int) -> list[str]:
    """Write names as up to three lines of `width`; one that is too long loses its middle, and a repeated one is numbered."""
    found = []
    for number, name in enumerate(names, start=1):
        label, room = wrap(name, width), min(len(name), width * LABEL_LINES)
        while label.count("\n") >= LABEL_LINES:
            room -= 1
            label = wrap(f"{name[: (room - 1) // 2]}…{name[len(name) - room // 2 :]}", width)
        found.append(f"#{number}" if label in found else label)
    return found


def types_of(systems: list[dict]) -> dict[str, int]:
    """Count the questions of each type."""
    return {kind: cell["n"] for row in systems for kind, cell in row["by_question_type"].items()}


def accuracy_of(system: dict, kind: str) -> float | None:
    """Look up a system's accuracy on the questions of one type."""
    return system["by_question_type"].get(kind, {}).get("accuracy")


def in_seconds(value: float | None) -> str:
    """Write seconds with three digits."""
    return as_text(value, "{:.3g}" if value is None or value < 1000 else "{:.0f}")
