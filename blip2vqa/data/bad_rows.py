"""Rows and pictures that cannot be used: what is said of them, and the files that list all of them."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from blip2vqa.data.raw_table import name_rows
from blip2vqa.data.readers import to_csv
from blip2vqa.data.table_checks import Table
from blip2vqa.utils.files import write_text_atomic

logger = logging.getLogger(__name__)

MAX_SHOWN = 80  # characters of a picture's name in a message


class BadRow(NamedTuple):
    """A row left out, with the reason against its picture, or against the row itself."""

    row: int
    image_name: str
    reason: str
    of: str = "image"
    """What cannot be used: the "image" or the "row"."""


def report_bad_images(
    path: str, bad_rows: list[BadRow], good: int, on_bad_image: str, bad_images_path: str | None
) -> list[str]:
    """Write and log the unusable pictures; returns the problems they make, the first ten by name."""
    rows_of = defaultdict(list)
    for bad in bad_rows:
        rows_of[bad.image_name, bad.reason].append(bad.row)
    if not rows_of:
        return []
    listed = ""
    if bad_images_path is not None:
        records = [(name, reason, " ".join(map(str, rows))) for (name, reason), rows in rows_of.items()]
        write_text_atomic(bad_images_path, to_csv(pd.DataFrame(records, columns=["image_name", "reason", "rows"])))
        listed = f", all listed in {bad_images_path}"
    total = f"{len(rows_of)} of {len(rows_of) + good} images cannot be used{listed}"
    if on_bad_image == "skip" and good:
        logger.warning("%s: %s; their %d rows are left out", path, total, len(bad_rows))
        return []
    remedy = "mend them, or leave their rows out with --on_bad_image skip" if good else "is image_dir the right folder?"
    problems = [f"{path}: {total}; {remedy}"]
    for (name, reason), rows in list(rows_of.items())[:10]:
        shown = name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}…"
        shown = shown if shown.startswith("image ") else f"image {shown}"  # a picture without a name is "image 3"
        problems.append(f"{shown}: {reason} ({name_rows(rows)})")
    if len(rows_of) > 10:
        problems.append(f"and {len(rows_of) - 10} more images")
    return problems


def report_bad_rows(
    path: str, bad_rows: list[BadRow], rows: int, on_bad_row: str, listing: str | None, known: Sequence[BadRow] = ()
) -> list[str]:
    """List rows that cannot be used, of `rows`, in a file, and warn of those to be left out; returns the problems they make.

    `known`: rows left out before, which the list holds, too.
    """
    skipped = on_bad_row == "skip" and len(bad_rows) < rows
    if not bad_rows or (listing is None and not skipped):
        return []
    listed = ""
    if listing is not None:
        records = sorted((bad.row, bad.image_name, bad.reason) for bad in [*known, *bad_rows] if bad.of == "row")
        write_text_atomic(listing, to_csv(pd.DataFrame(records, columns=["row", "image_name", "reason"]).astype(str)))
        listed = f", all listed in {listing}"
    total = f"{path}: {len(bad_rows):,} of {rows:,} rows cannot be used{listed}"
    if skipped:
        logger.warning("%s; they are left out", total)
        return []
    remedy = "; mend them, or leave them out with --on_bad_row skip" if len(bad_rows) < rows else ""
    return [f"{total}{remedy}"]


def leave_out(
    path: str, examples: list, reasons: Iterable[tuple[int, str]], on_bad_row: str, *listing
) -> tuple[list, list[BadRow], list[str]]:
    """Leave out the examples that there are reasons against, by row, as when the table was read.

    `listing`: where all are listed, and the rows left out before. Returns the others, the rows left out, and the problems.
    """
    against = defaultdict(list)
    for row, reason in reasons:
        against[row].append(reason)
    bad = [BadRow(e.row, e.image_name, "; ".join(against[e.row]), "row") for e in examples if e.row in against]
    problems = report_bad_rows(path, bad, len(examples), on_bad_row, *listing)
    if bad and (problems or on_bad_row == "error"):
        more = [f"… and {len(bad) - 10} more rows"] if len(bad) > 10 else []
        problems = [*(f"row {one.row}: {one.reason}" for one in bad[:10]), *more, *problems]
    return [example for example in examples if example.row not in against], bad, problems


def bad_texts(table: Table) -> list[BadRow]:
    """List the rows whose texts cannot be used."""
    named = table.image in table.frame
    names = dict(zip(table.frame.index, table.frame[table.image], strict=True)) if named and table.bad else {}
    return [BadRow(row, names.get(row, ""), "; ".join(table.bad[row]), "row") for row in sorted(table.bad)]
