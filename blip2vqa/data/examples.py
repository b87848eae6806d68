"""Makes examples of a table's rows and their pictures, and checks them all."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blip2vqa.data.answers import QUESTION_TYPES, question_type
from blip2vqa.data.bad_rows import BadRow, bad_texts, report_bad_images, report_bad_rows
from blip2vqa.data.columns import ColumnNames
from blip2vqa.data.finding import ImageIndex
from blip2vqa.data.images import BadImage, ImageSource, check_images
from blip2vqa.data.table_checks import Table, most_common
from blip2vqa.data.tables import load_table
from blip2vqa.utils.errors import InputError, raise_all

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
        pictures, bad_rows = _check_pictures(table, path, image_dir, progress)
        good = len({picture[0].name for picture in pictures if picture})
        problems += report_bad_images(path, bad_rows, good, on_bad_image, bad_images_path)
        unusable = bad_texts(table)
        for problem in report_bad_rows(path, unusable, len(table.frame), on_bad_row, bad_rows_path):
            problems.append(f"{problem} (texts too long for the base are looked for once these are mended)")
    if table is not None:
        problems += _check_type_column(table, path, question_type_column)
    raise_all(problems)
    left_out = {bad.row for bad in unusable}
    bad_rows = sorted([*unusable, *(bad for bad in bad_rows if bad.row not in left_out)])
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
    require_answers: bool = True,
) -> list[Example]:
    """Read questions with their answers, for scoring: no picture is looked for, and `image` and `digest` stay empty.

    Raises InputError with every problem that `load_table` finds.
    """
    given = {
        "require_answers": require_answers,
        "require_images": False,
        "require_questions": False,
        "columns": columns,
        "on_bad_row": on_bad_row,
    }
    table, problems = load_table(path, annotations_path, **given)
    if table is not None:
        problems += report_bad_rows(path, bad_texts(table), len(table.frame), on_bad_row, bad_rows_path)
        problems += _check_type_column(table, path, question_type_column)
    raise_all(problems)
    return _build(table, [(None, "")] * len(table.frame), question_type_column)


def _check_type_column(table: Table, path: str, name: str | None) -> list[str]:
    if name in (None, *table.frame):
        return []
    return [f"{path}: no column {name} for question types; its columns are {', '.join(table.frame)}"]


def _check_pictures(
    table: Table, path: str, image_dir: str | None, progress: bool
) -> tuple[list[tuple[ImageSource, str] | None], list[BadRow]]:
    """Find the picture of each row, with its digest, and decode each once; None, and a bad row, where it cannot be used."""
    bad: dict[str, str] = {}  # reasons, by key
    names = table.frame[table.image].tolist() if table.image in table.frame else [""] * len(table.frame)
    if table.images is not None:
        keys = [str(position) for position in range(len(names))]
        places = [Path(one) for one in (path, path.rpartition(":")[0]) if one and Path(one).exists()][:1]
        folders = *(one if one.is_dir() else one.parent for one in places), *([Path(image_dir)] if image_dir else [])
        sources = {key: ImageSource(key, dataset=table.images, index=int(key), folders=folders) for key in keys}
    else:
        keys, sources, index = [name.strip() for name in names], {}, ImageIndex(image_dir)
        for key in filter(None, dict.fromkeys(keys)):  # an empty cell is reported with the table
            try:
                sources[key] = ImageSource(key, path=index.find(key))
            except BadImage as error:
                bad[key] = error.reason
        index.report(path)
    digests, undecodable = check_images(sources.values(), progress=progress)
    bad |= undecodable
    rows = zip(table.frame.index.tolist(), names, keys, strict=True)
    pictures = [(sources[key], digests[key]) if key in digests else None for key in keys]
    return pictures, [BadRow(row, name, bad[key]) for row, name, key in rows if key in bad]


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
