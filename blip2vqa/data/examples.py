"""Makes examples of a table's rows and their pictures, and checks them all."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from blip2vqa.data.answers import QUESTION_TYPES, question_type
from blip2vqa.data.columns import ColumnNames
from blip2vqa.data.images import BadImage, ImageIndex, ImageSource, check_images
from blip2vqa.data.raw_table import name_rows
from blip2vqa.data.readers import to_csv
from blip2vqa.data.table_checks import Table, most_common
from blip2vqa.data.tables import load_table
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.files import write_text_atomic

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one picture."""

    row: int
    """The row as the user sees it in the table (see `Table.frame`), not a position in a list."""
    image: ImageSource
    image_name: str
    digest: str
    """SHA-256 of the picture's bytes, hexadecimal: the same picture under two names has one digest."""
    question: str
    answers: tuple[str, ...]
    """All annotators' answers; one for a table with an answer column; () when there is none."""
    question_type: str
    extra: dict[str, str]
    """The table's other columns."""

    @property
    def answer(self) -> str:
        """Return the most common answer; of equally common ones the table's own, else the first; "" when there is none."""
        return most_common(self.answers)

    @property
    def image_key(self) -> str:
        """Return what tells its picture from others: the digest, or the name where no picture was read."""
        return self.digest or self.image_name


class BadRow(NamedTuple):
    """A row left out, with the reason against its picture, or against the row itself."""

    row: int
    image_name: str
    reason: str
    of: str = "image"
    """What cannot be used: the "image" or the "row"."""


def load_examples(
    path: str,
    image_dir: str | None,
    annotations_path: str | None = None,
    *,
    require_answers: bool = True,
    columns: ColumnNames | None = None,
    on_bad_row: str = "error",
    **options,
) -> tuple[list[Example], list[BadRow]]:
    """Read a table (as `load_table`), find and decode every picture once, and check it all (as `check_examples`)."""
    given = {"require_answers": require_answers, "columns": columns, "on_bad_row": on_bad_row}
    table, problems = load_table(path, annotations_path, **given)
    return check_examples(table, problems, path, image_dir, on_bad_row=on_bad_row, **options)


def check_examples(
    table: Table | None,
    problems: list[str],
    path: str,
    image_dir: str | None,
    *,
    question_type_column: str | None = None,
    on_bad_image: str = "error",
    bad_images_path: str | None = None,
    on_bad_row: str = "error",
    bad_rows_path: str | None = None,
    progress: bool = True,
) -> tuple[list[Example], list[BadRow]]:
    """Make examples of a table that `load_table` has read, with the problems that it found.

    Args:
        image_dir: the folder of the pictures; None when the table holds them itself.
        question_type_column: a column that gives the question types; else the column question_type where there is
            one; else, and for empty cells, the rule `question_type`. In a table without questions every question is "",
            and its type by rule is the name of the answers' column.
        on_bad_image: "error", or "skip" to leave rows with unusable pictures out and return them beside the examples.
        bad_images_path: where to write all unusable pictures (CSV: image_name, reason, rows), if there are any.
        on_bad_row, bad_rows_path: the same for rows whose texts cannot be used (CSV: row, image_name, reason).

    Returns the examples in the table's order and the rows left out (empty with "error").
    Raises InputError with everything that is wrong, table and pictures, in one go; also when no picture is usable.
    """
    in_folder = table is None or table.images is None
    if in_folder and image_dir is not None and not Path(image_dir).is_dir():
        problems.append(f"image_dir {image_dir}: no such folder")
    elif in_folder and image_dir is None and table is not None:
        problems.append(f"image_dir is not given, and {path} holds no pictures itself; give the folder of the pictures")
    elif table is not None:
        pictures, bad_rows = _check_pictures(table, image_dir, progress)
        good = len({picture[0].name for picture in pictures if picture})
        problems += _report(path, bad_rows, good, on_bad_image, bad_images_path)
        bad_texts = _bad_texts(table)
        problems += report_bad_rows(path, bad_texts, len(table.frame), on_bad_row, bad_rows_path)
    if table is not None:
        problems += _check_type_column(table, path, question_type_column)
    raise_all(problems)
    left_out = {bad.row for bad in bad_texts}
    bad_rows = sorted([*bad_texts, *(bad for bad in bad_rows if bad.row not in left_out)])
    examples = _build(table, pictures, question_type_column)
    return examples, bad_rows


def of_types(examples: list[Example], types: tuple[str, ...], path: str) -> list[Example]:
    """Pick the examples of these question types.

    Raises InputError, naming the types that the table has, for a type that neither it nor the rule knows, or when no
    question is left; a type of the rule that the table does not have is warned about.
    """
    absent, unknown = missing_types(types, examples)
    if unknown or len(absent) == len(types):
        known = ", ".join(sorted({example.question_type for example in examples}))
        raise InputError(
            f"--question_types: {path} has no question of type {', '.join(unknown or absent)}; it has {known}"
        )
    if absent:
        logger.warning("%s has no question of type %s", path, ", ".join(absent))
    return [example for example in examples if example.question_type in types]


def missing_types(types: Iterable[str], examples: list[Example]) -> tuple[list[str], list[str]]:
    """List the types that no question has, and those of them that the rule does not know either: perhaps misspelt."""
    there = {example.question_type for example in examples}
    absent = [name for name in types if name not in there]
    return absent, [name for name in absent if name not in QUESTION_TYPES]


def load_questions(
    path: str,
    annotations_path: str | None = None,
    *,
    question_type_column: str | None = None,
    columns: ColumnNames | None = None,
    on_bad_row: str = "error",
    bad_rows_path: str | None = None,
) -> list[Example]:
    """Read questions with their answers, for scoring: no picture is looked for, and `image` and `digest` stay empty.

    Raises InputError with every problem that `load_table` finds.
    """
    given = {"require_answers": True, "require_images": False, "columns": columns, "on_bad_row": on_bad_row}
    table, problems = load_table(path, annotations_path, **given)
    if table is not None:
        problems += report_bad_rows(path, _bad_texts(table), len(table.frame), on_bad_row, bad_rows_path)
        problems += _check_type_column(table, path, question_type_column)
    raise_all(problems)
    return _build(table, [(None, "")] * len(table.frame), question_type_column)


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
    path: str, examples: list[Example], reasons: Iterable[tuple[int, str]], on_bad_row: str, *listing
) -> tuple[list[Example], list[BadRow], list[str]]:
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


def _bad_texts(table: Table) -> list[BadRow]:
    named = table.image in table.frame
    names = dict(zip(table.frame.index, table.frame[table.image], strict=True)) if named and table.bad else {}
    return [BadRow(row, names.get(row, ""), "; ".join(table.bad[row]), "row") for row in sorted(table.bad)]


def _check_type_column(table: Table, path: str, name: str | None) -> list[str]:
    if name in (None, *table.frame):
        return []
    return [f"{path}: no column {name} for question types; its columns are {', '.join(table.frame)}"]


def _check_pictures(
    table: Table, image_dir: str | None, progress: bool
) -> tuple[list[tuple[ImageSource, str] | None], list[BadRow]]:
    """Find the picture of each row, with its digest, and decode each once; None, and a bad row, where it cannot be used."""
    bad: dict[str, str] = {}  # reasons, by key
    names = table.frame[table.image].tolist() if table.image in table.frame else [""] * len(table.frame)
    if table.images is not None:
        keys = [str(position) for position in range(len(names))]
        sources = {key: ImageSource(key, dataset=table.images, index=int(key)) for key in keys}
    else:
        keys, sources, index = [name.strip() for name in names], {}, ImageIndex(image_dir)
        for key in filter(None, dict.fromkeys(keys)):  # an empty cell is reported with the table
            try:
                sources[key] = ImageSource(key, path=index.find(key))
            except BadImage as error:
                bad[key] = error.reason
    digests, undecodable = check_images(sources.values(), progress=progress)
    bad |= undecodable
    rows = zip(table.frame.index.tolist(), names, keys, strict=True)
    pictures = [(sources[key], digests[key]) if key in digests else None for key in keys]
    return pictures, [BadRow(row, name, bad[key]) for row, name, key in rows if key in bad]


def _report(path: str, bad_rows: list[BadRow], good: int, on_bad_image: str, bad_images_path: str | None) -> list[str]:
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
    remedy = "mend them, or leave their rows out with on_bad_image skip" if good else "is image_dir the right folder?"
    problems = [f"{path}: {total}; {remedy}"]
    for (name, reason), rows in list(rows_of.items())[:10]:
        problems.append(f"image {name}: {reason} ({name_rows(rows)})")
    if len(rows_of) > 10:
        problems.append(f"and {len(rows_of) - 10} more images")
    return problems


def _build(
    table: Table, pictures: list[tuple[ImageSource | None, str] | None], type_column: str | None
) -> list[Example]:
    """Make an example of each row that is usable, with its picture."""
    frame = table.frame

    def column(name: str | None) -> list[str]:
        return frame[name].tolist() if name in frame else [""] * len(frame)

    questions = [text.strip() for text in column(table.question)]
    if table.question is None:
        by_rule = {"": table.answer}
    else:
        by_rule = {question: question_type(question) for question in dict.fromkeys(questions)}
        type_column = type_column or "question_type"
    extra = frame.drop(columns=[table.image, table.question, table.answer], errors="ignore").to_dict("records")
    # Of several equally common answers the table's own comes first, so that it is `Example.answer`.
    answers = [
        several if most_common(several) == one else tuple(sorted(several, key=lambda answer, one=one: answer != one))
        for several, one in zip(table.answers, column(table.answer), strict=True)
    ]
    kinds = [text.strip() or by_rule[question] for text, question in zip(column(type_column), questions, strict=True)]
    names = column(table.image)
    rows = zip(frame.index.tolist(), pictures, names, questions, answers, kinds, extra, strict=True)
    return [
        Example(row, picture[0], name, picture[1], *rest)
        for row, picture, name, *rest in rows
        if picture and row not in table.bad
    ]
