"""Makes examples without a question from tables of captions, which may have several captions a picture."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from blip2vqa.data.bad_rows import BadRow
from blip2vqa.data.columns import ColumnNames
from blip2vqa.data.examples import Example, check_examples
from blip2vqa.data.raw_table import RawTable
from blip2vqa.data.table_checks import check_table
from blip2vqa.data.tables import read_raw
from blip2vqa.utils.errors import InputError, collect_errors

CAPTION = "caption"  # the column, and the question type of rows without a style
CHOICES = ("all", "style", "shortest", "longest")


def load_captions(
    path: str,
    image_dir: str | None,
    *,
    choose: str = "all",
    style: str | None = None,
    columns: ColumnNames | None = None,
    split: str | None = None,
    on_bad_row: str = "error",
    **options,
) -> tuple[list[Example], list[BadRow]]:
    """Read a table of image_name, caption and, if there is one, style; check it and its pictures as `load_examples` does.

    A picture may stand in several rows, and a caption cell may be a list of several captions, as in many data sets of the
    Hub. Columns may have other usual names, or those of `columns`. Capitals do not matter in the name style.

    Args:
        choose: "all" captions; those of one "style"; of each picture, by content, the "shortest" or the "longest" (by
            words, then by characters; of equals the first in the table).
        style: with choose "style", the rows whose column style says so, whatever the capitals; no other row and none of
            its pictures is looked at.
        split: which split of Karpathy's to read where `path` names none.
        options: on_bad_image, bad_rows_path, bad_images_path and progress, as in `check_examples`, which also says what is
            raised.

    Returns one example a caption: question "", `answers` the one caption with single spaces between its words,
    `question_type` the row's style, else "caption"; in the table's order, with "shortest" and "longest" in that of the
    pictures' first rows. Beside it the rows left out.
    """
    problems = _check_choice(choose, style)
    raw, table, style_column = collect_errors(problems, read_raw, str(path), None, columns, split), None, None
    if raw is not None:
        style_column = next((column for column in raw.frame if column.lower() == "style"), None)
        if choose == "style" and style and len(raw.frame):
            raw = collect_errors(problems, _of_style, raw, path, style_column, style) or raw
        given = {"require_answers": True, "kind": CAPTION, "columns": columns, "on_bad_row": on_bad_row}
        table, found = check_table(raw, path, **given)
        problems += found
    options |= {"question_type_column": style_column, "on_bad_row": on_bad_row}
    examples, bad_rows = check_examples(table, problems, path, image_dir, **options)
    captions = [(example, " ".join(text.split())) for example in examples for text in example.answers]
    examples = [replace(example, answers=(text,)) for example, text in captions if text]
    if choose in ("shortest", "longest"):
        pick = min if choose == "shortest" else max  # both take the first of equals
        groups = _by_image(examples)
        examples = [pick(group, key=lambda one: (len(one.answer.split()), len(one.answer))) for group in groups]
    return examples, bad_rows


def group_by_image(examples: Sequence[Example]) -> list[Example]:
    """Make one example a picture, by content, with all its captions as `answers`; both in order of first appearance.

    Everything else is taken from the picture's first example, but the type of captions of different styles is
    "caption". Without a digest the picture's name stands for it.
    """
    return [
        replace(
            group[0],
            answers=tuple(caption for example in group for caption in example.answers),
            question_type=group[0].question_type if len({one.question_type for one in group}) == 1 else CAPTION,
        )
        for group in _by_image(examples)
    ]


def _check_choice(choose: str, style: str | None) -> list[str]:
    if choose not in CHOICES:
        return [f"choose {choose!r}: give one of {', '.join(CHOICES)}"]
    if choose == "style" and not (style or "").strip():
        return ["choose style: say which style"]
    if choose != "style" and style is not None:
        return [f"style {style!r}: only goes with choose style, not {choose}"]
    return []


def _of_style(raw: RawTable, path: str, column: str | None, style: str) -> RawTable:
    if column is None:
        columns = ", ".join(raw.frame)
        raise InputError(f"{path}: style {style!r}: the table has no column style; its columns are {columns}")
    styles = [text.strip() for text in raw.frame[column].tolist()]
    chosen = [position for position, text in enumerate(styles) if text.casefold() == style.strip().casefold()]
    if not chosen:
        known = Counter(text for text in styles if text).most_common()
        names = ", ".join(f"{name} ({count})" for name, count in known[:10]) or "nothing"
        rest = f" and {len(known) - 10} more" if len(known) > 10 else ""
        raise InputError(f"{path}: style {style!r} in no row; column {column} holds {names}{rest}")
    return raw.take(chosen)


def _by_image(examples: Sequence[Example]) -> list[list[Example]]:
    groups = defaultdict(list)
    for example in examples:
        groups[example.image_key].append(example)
    return list(groups.values())
