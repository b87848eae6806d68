"""A table as its file holds it, before anything is asked of it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from blip2vqa.data.columns import NAMES
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.terminal import half_pair

if TYPE_CHECKING:
    import datasets

KNOWN_COLUMNS = ("image_name", "question", "answer", "answers", "question_id", "question_type")
MAX_COLUMNS = 1000
MAX_CELLS = 20_000_000
USUAL_COLUMNS = {*KNOWN_COLUMNS, *(name for groups in NAMES.values() for group in groups for name in group)}


@dataclass(frozen=True)
class RawTable:
    """A table as its file holds it."""

    frame: pd.DataFrame
    """Text cells in the file's order; its index is the row as the user sees it: a spreadsheet's row, the header being row 1; a
    line of a JSONL file; else the item, from 1."""
    nested: dict[str, list] = field(default_factory=dict)
    """The columns that hold more than texts and numbers, with one value a row as the file had it."""
    images: "datasets.Dataset | None" = None
    """A dataset of the same length with the one column `image`, not decoded."""
    layout: str = ""
    """The published layout that the file has; "" for a plain table."""

    def take(self, positions: list[int]) -> "RawTable":
        """Return a table of these rows, which may be fewer or come more than once."""
        nested = {name: [values[position] for position in positions] for name, values in self.nested.items()}
        images = self.images and self.images.select(positions)
        return replace(self, frame=self.frame.iloc[positions], nested=nested, images=images)


def name_rows(rows: Iterable, noun: str = "row") -> str:
    """Write "row 3" or "rows 3, 7, 8 and 12 more": the first ten by name, the rest by count."""
    rows = list(rows)
    rest = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return f"{noun}{'s' if len(rows) > 1 else ''} {', '.join(str(row) for row in rows[:10])}{rest}"


def clean_names(names: Iterable[str]) -> list[str]:
    """Strip column names; write those known here in lower case, and name empty ones by their position."""
    stripped = [str(name).strip() for name in names]
    named = [name or f"column_{position}" for position, name in enumerate(stripped, 1)]
    return [name.lower() if name.lower() in KNOWN_COLUMNS else name for name in named]


def as_text(value: object) -> str:
    """Write a cell as text: texts as they are, None as "", anything else as JSON."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN is an empty cell of a column of numbers
        return ""
    return json.dumps(value, ensure_ascii=False, default=str)


def check_size(path: Path | str, names: Sequence[str], rows: int) -> None:
    """Raise `InputError` for more columns, or more cells, than are read, and for names that are no text."""
    if broken := [name for name in names if half_pair(str(name))]:
        raise InputError(
            f"{path}: column {', '.join(broken)}: half of a surrogate pair, which is no character; mend it"
        )
    if len(names) > MAX_COLUMNS:
        raise InputError(
            f"{path}: {len(names):,} columns; at most {MAX_COLUMNS:,} are read: the same columns are expected in all rows"
        )
    if len(names) * rows > MAX_CELLS:
        raise InputError(
            f"{path}: {rows:,} rows of {len(names):,} columns; at most {MAX_CELLS:,} cells are read; leave out columns that "
            "are not needed, or split the table"
        )


def from_records(path: Path, records: list[dict], rows: Iterable[int], layout: str = "") -> RawTable:
    """Make a table of one object a row; `rows` are the labels of its index."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    check_size(path, keys, len(records))  # before the cells are laid out
    return from_columns(path, keys, [[record.get(key) for record in records] for key in keys], rows, layout)


def from_columns(
    path: Path | str, names: list[str], columns: list[list], rows: Iterable[int], layout: str = "", images=None
) -> RawTable:
    """Make a table of columns of any values; `rows` are the labels of its index."""
    check_size(path, names, max(map(len, columns), default=0))
    names = clean_names(names)
    refuse_duplicates(path, names)
    cells = dict(zip(names, columns, strict=True))
    try:
        frame = pd.DataFrame({name: map(as_text, values) for name, values in cells.items()}, index=rows, dtype=object)
    except RecursionError as error:
        raise InputError(f"{path}: JSON nested too deeply") from error
    nested = {
        name: values
        for name, values in cells.items()
        if not all(value is None or type(value) in (str, int, float) for value in values)
    }
    return RawTable(frame, nested, images, layout)


def refuse_duplicates(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {', '.join(twice)} stands there more than once; rename or delete one")
