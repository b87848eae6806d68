"""Checks what a table holds: its columns, and each row's texts and answers."""

import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial

from blip2vqa.data.annotators import looks_like_list, parse_answers, parse_cell
from blip2vqa.data.columns import FLAGS, NAMES, ColumnNames, find_column, usual_columns
from blip2vqa.data.raw_table import RawTable, name_rows
from blip2vqa.data.several import ONE_A_CELL, refuse_several, split_cells
from blip2vqa.utils.console import say
from blip2vqa.utils.errors import collect_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table(RawTable):
    """A table that was checked: image, question, answer where there is one, and the user's own columns."""

    answers: list[tuple[str, ...]] = field(default_factory=list)
    """Those of all annotators, one tuple a row, () where there is none."""
    image: str = "image_name"
    """Name of the column of images' names."""
    question: str | None = "question"
    """Name of the column of questions; None in a table of captions."""
    answer: str = "answer"
    """Name of the column of answers, or of captions."""
    bad: dict[int, list[str]] = field(default_factory=dict)
    """The rows that cannot be used, by their labels in the index, with the reasons."""

    def only(self, rows: set[int]) -> "Table":
        """Return the table with these rows alone, given by their labels in the index; all pictures stay."""
        kept = [row in rows for row in self.frame.index]
        answers = [answer for answer, stays in zip(self.answers, kept, strict=True) if stays]
        return replace(self, frame=self.frame[kept], nested={}, answers=answers)


def check_table(
    raw: RawTable,
    path: str,
    *,
    require_answers: bool,
    kind: str | None = "answer",
    columns: ColumnNames | None = None,
    require_images: bool = True,
    require_questions: bool = True,
    on_bad_row: str = "error",
) -> tuple[Table | None, list[str]]:
    """Check a table that `read_raw` has read, and return it with its problems.

    Args:
        require_answers: whether a row without an answer cannot be used.
        kind: "answer" to a question; "caption"; None for a table that is to hold neither.
        require_images: whether the table must name images, unless it holds them itself.
        require_questions: whether a table of questions must have a column of them.
        on_bad_row: "error" makes problems of the rows that cannot be used; "skip" leaves them to the caller, in
            `Table.bad`, unless there are no others.
    """
    if not len(raw.frame):
        return None, [f"{path}: no rows"]
    columns = columns or ColumnNames()
    inside = raw.images is not None and columns.image not in raw.frame  # the column of the pictures themselves
    asked = {"image": None if inside else columns.image or _longest_paths(raw)}
    asked |= {"question": columns.question} if kind == "answer" else {}
    asked |= {kind: columns.answer} if kind else {}
    needed = {"image": require_images and raw.images is None, "question": require_questions, kind: require_answers}
    found, problems = _find_columns(list(raw.frame), path, asked, needed)
    if columns.separator == "":
        problems.append("--cell_separator: empty; say what stands between the questions of a cell, or none")
    if found.get("question") and columns.separator != ONE_A_CELL:
        step = partial(split_cells, separator=columns.separator) if columns.separator else refuse_several
        raw = collect_errors(problems, step, raw, path, found["question"], found["answer"]) or raw
    _say_what_was_found(raw, path, found)

    bad: dict[int, list[str]] = defaultdict(list)
    for name in [found[one] for one in ("image", "question") if found.get(one) and (needed[one] or one == "question")]:
        _check_texts(raw, name, bad)
    table = Table(
        **vars(raw),
        answers=[()] * len(raw.frame),
        image=found["image"] or "image_name",
        question=(found["question"] or "question") if "question" in found else None,
        answer=found.get(kind) or kind or "answer",
        bad=bad,
    )
    if found.get(kind) and not require_answers and columns.answer is None and not _holds_answers(raw, found[kind]):
        logger.warning("%s: the column %s holds no answers: it is left alone", path, found[kind])
        table = replace(table, answer=kind)
    elif found.get(kind):
        table = _with_answers(table, path, columns.answer is None and kind == "answer")
        for row, answers in zip(raw.frame.index, table.answers, strict=True) if require_answers else ():
            if not answers and not any(reason.startswith(found[kind]) for reason in bad.get(row, ())):
                bad[row].append(f"empty {found[kind]}")
    if on_bad_row == "error" or len(bad) == len(table.frame):
        problems += _describe_bad_rows(path, table)
    return table, problems


def most_common(answers: tuple[str, ...]) -> str:
    """Find the most common answer, of several the first; "" when there is none."""
    return max((answer for answer in answers if answer.strip()), key=answers.count, default="")


def _find_columns(
    names: list[str], path: str, asked: dict[str, str | None], needed: dict[str | None, bool]
) -> tuple[dict[str, str | None], list[str]]:
    """Find the column of each kind; returns them, and a problem for each that is needed, or asked for, and not found."""
    found, problems = {}, []
    for kind, name in asked.items():
        wrong: list[str] = []
        found[kind] = collect_errors(wrong, find_column, path, names, kind, name)
        if needed[kind] and not found[kind]:
            problems += wrong or [_missing_column(path, kind, names)]
        elif name:
            problems += wrong
        elif wrong and kind == "answer":
            logger.warning("%s; without it nothing is scored", *wrong)
    wanted = needed["question"] or "caption" in found
    another = (
        None if asked.get("question") or asked.get("caption") or not wanted else _looks_like_another(path, found, names)
    )
    return found, [another] if another else problems


def _longest_paths(raw: RawTable) -> str | None:
    """Find the column of images' names in which those of the others end: of file_name and file_path the second."""
    names = usual_columns(list(raw.frame), "image")
    for name in names if len(names) > 1 else ():
        others = [raw.frame[other] for other in names if other != name]
        if all(long.endswith(short) for other in others for long, short in zip(raw.frame[name], other, strict=True)):
            return name
    return None


def _missing_column(path: str, kind: str, names: list[str]) -> str:
    if kind == "answer" and {*names} == {"image_name", "question", "question_id"}:
        more = " (official VQA questions need annotations_path too)"
    else:
        more = f"; rename the one that holds the {kind}s, or name it by --{FLAGS[kind]} (finetune, inference)"
    return f"{path}: no column {NAMES[kind][0][0]}; its columns are {', '.join(names)}{more}"


def _looks_like_another(path: str, found: dict[str, str | None], names: list[str]) -> str | None:
    """Say what a table without questions or without captions seems to be instead."""

    def other(kind: str) -> str | None:
        return collect_errors([], find_column, path, names, kind)

    if "question" in found and not found["question"] and (captions := other("caption")):
        if found.get("answer"):
            return f"{path}: no column question; if {captions} holds the questions: --question_column {captions}"
        return (
            f"{path}: no column question, but {captions}: it looks like a table of captions, which finetune learns with "
            "--task caption"
        )
    if "question" in found and not found["question"] and {"question_id", "image_id", "answers"} <= {*names}:
        return (
            f"{path}: no column question: official VQA annotations; give the questions' JSON as the table, and this file as "
            "--annotations_path"
        )
    if "caption" in found and not found["caption"] and other("question"):
        listed = ", ".join(names)
        return f"{path}: no column caption; its columns are {listed}: a table of questions, which goes without --task caption"
    return None


def _say_what_was_found(raw: RawTable, path: str, found: dict[str, str | None]) -> None:
    """Say which layout was taken, and which columns, where these are not what the documentation calls them."""
    usual = {NAMES[kind][0][0] for kind in found if kind} | {"answers"}
    others = [f"{kind}s from {name}" for kind, name in found.items() if name and name not in usual]
    parts = [f"read as {raw.layout}"] * bool(raw.layout) + others
    if parts:
        say(f"{path}: {', '.join(parts)}")


def _check_texts(raw: RawTable, name: str, bad: dict[int, list[str]]) -> None:
    """Note the rows whose cell in a column is empty or no text, or a text that is a list or an object."""
    values = raw.nested.get(name) or raw.frame[name].tolist()
    for row, value in zip(raw.frame.index, values, strict=True):
        value = parse_cell(value) if isinstance(value, str) and value else value
        if isinstance(value, list | dict | bool):
            bad[row].append(f"{name} is no text but {_NOT_TEXT[type(value)]}")
        elif value is None or not str(value).strip():
            bad[row].append(f"empty {name}")


_NOT_TEXT = {list: "a list", dict: "an object", bool: "true or false"}


def _holds_answers(raw: RawTable, name: str) -> bool:
    """Return whether a column holds answers; one that has the documented name is taken to do so."""
    values = [] if name in ("answer", "answers") else raw.nested.get(name) or raw.frame[name].tolist()
    try:
        return all(parse_answers(value) is not None for value in values)
    except ValueError:
        return False


def _with_answers(table: Table, path: str, several: bool) -> Table:
    """Read the answers of all annotators, which `several` looks for in the column answers, too."""
    several = several and ("answers" in table.frame or "answers" in table.nested)
    first = _parse(table, table.answer, path)
    if not several:
        return replace(table, answers=first)
    if table.answer == "answers":
        table, more = replace(table, answer="answer"), first
        texts = [""] * len(first)
    else:
        more, texts = _parse(table, "answers", path), table.frame[table.answer].tolist()
    # Of the annotators' answers the most common stands where the table has none of its own.
    official = [text if text.strip() else most_common(row) for text, row in zip(texts, more, strict=True)]
    answers = [row or one for row, one in zip(more, first, strict=True)]
    return replace(table, frame=table.frame.assign(**{table.answer: official}), answers=answers)


def _parse(table: Table, name: str, path: str) -> list[tuple[str, ...]]:
    """Parse the answers in a column; a row whose cell holds something else is bad."""
    found, odd = [], []
    values = table.nested.get(name) or table.frame[name].tolist()
    for row, value in zip(table.frame.index, values, strict=True):
        try:
            found.append(parse_answers(value))
        except ValueError as error:
            found.append(())
            table.bad[row].append(f"{name} is {error}, not a text, a number or a list of these")
        if isinstance(value, str) and found[-1] == (value,) and looks_like_list(value):
            odd.append(row)
    if odd and name in [group for groups in NAMES["answer"] for group in groups]:
        logger.warning("%s: %s: %s begins like a list and is none: taken as a text", path, name_rows(odd), name)
    return found


def _describe_bad_rows(path: str, table: Table) -> list[str]:
    """Make a problem of each reason against rows."""
    rows_of = defaultdict(list)
    for row, reasons in sorted(table.bad.items()):
        for reason in reasons:
            rows_of[reason].append(row)
    problems = []
    for reason, rows in rows_of.items():
        if reason.startswith("empty ") and len(rows) == len(table.frame):
            problems.append(f"{path}: column {reason.removeprefix('empty ')} is empty in all {len(rows)} rows")
        elif reason.startswith("empty "):
            problems.append(f"{path}: {reason} in {name_rows(rows)}; fill in or delete")
        else:
            problems.append(f"{path}: {name_rows(rows)}: {reason}")
    return problems
