"""Reads tables of questions or captions in whatever format the user has them, and checks what they hold."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

from blip2vqa.data.readers import RawTable, as_text, name_rows, read_csv, read_json, read_jsonl
from blip2vqa.utils.errors import InputError, collect_errors, raise_all
from blip2vqa.utils.files import is_endless
from blip2vqa.utils.terminal import half_pair

# Each also with .gz after it.
FORMATS = {**dict.fromkeys((".csv", ".tsv", ".txt"), read_csv), ".jsonl": read_jsonl, ".json": read_json}


@dataclass(frozen=True)
class Table(RawTable):
    """A table that was checked: image_name, question, answer where there is one, and the user's own columns.

    Its `answers` are those of all annotators, one tuple a row, () where there is none.
    """

    question: str | None = "question"
    """Name of the column of questions; None in a table of captions."""
    answer: str = "answer"
    """Name of the column of answers, or of captions."""

    def only(self, rows: set[int]) -> "Table":
        """Return the table with these rows alone, given by their labels in the index; all pictures stay."""
        kept = [row in rows for row in self.frame.index]
        answers = [answer for answer, stays in zip(self.answers, kept, strict=True) if stays]
        return replace(self, frame=self.frame[kept], answers=answers)


def load_table(path: str, annotations_path: str | None, *, require_answers: bool) -> tuple[Table | None, list[str]]:
    """Read a CSV, JSONL or JSON table, the official VQA JSON pair, a `datasets` folder or a Hub id `user/name[:split]`.

    Returns as much of the table as could be read, and every problem found: no such file, unreadable, missing columns,
    no rows, empty questions or (with `require_answers`) empty answers.
    """
    problems: list[str] = []
    raw = collect_errors(problems, read_raw, str(path), annotations_path)
    return (None, problems) if raw is None else check_table(raw, path, require_answers=require_answers)


def check_table(
    raw: RawTable, path: str, *, require_answers: bool, question: str | None = "question", answer: str = "answer"
) -> tuple[Table | None, list[str]]:
    """Check a table that `read_raw` has read, and return it with its problems; `question`, `answer`: as in `Table`."""
    frame, problems = raw.frame, []
    if not len(frame):
        return None, [f"{path}: no rows"]

    texts = frame[answer].tolist() if answer in frame else [""] * len(frame)
    answers = [(text,) if text and not text.isspace() else () for text in texts]
    if raw.answers is not None:
        several, malformed = _annotators(raw.answers)
        if malformed:
            rows = name_rows(frame.index[malformed])
            problems.append(f'{path}: {rows}: {answer}s must be a list of texts, like ["red", "dark red"]')
        official = [text if one else most_common(row) for text, one, row in zip(texts, answers, several, strict=True)]
        frame = frame.assign(**{answer: official})
        answers = [row or one for row, one in zip(several, answers, strict=True)]

    needed = ["image_name"] * (raw.images is None) + [question] * (question is not None) + [answer] * require_answers
    for column in needed:
        if column not in frame:
            problems.append(_missing_column(path, column, list(frame)))
        elif (empty := frame[column].str.strip() == "").any():
            if empty.all():
                problems.append(f"{path}: column {column} is empty in all {len(frame)} rows")
            else:
                problems.append(f"{path}: empty {column} in {name_rows(frame.index[empty])}; fill in or delete")
    return Table(frame, answers, raw.images, question, answer), problems


def most_common(answers: tuple[str, ...]) -> str:
    """Find the most common answer, of several the first; "" when there is none."""
    return max((answer for answer in answers if answer.strip()), key=answers.count, default="")


def read_raw(path: str, annotations_path: str | None = None) -> RawTable:
    """Read the table by its format, without checking it. Raises InputError for a file that is missing or not understood."""
    raw = _read_by_format(path, annotations_path)
    raise_all(_half_pairs(raw, path))
    return raw


def _half_pairs(raw: RawTable, path: str) -> list[str]:
    """Name the cells that hold half of a surrogate pair, as JSON can write it: no file and no tokenizer takes such a text."""
    columns = {name: raw.frame[name].tolist() for name in raw.frame}
    if raw.answers is not None and "answers" not in columns:  # of official annotations
        columns["answers"] = [as_text(given) for given in raw.answers]
    problems = []
    for name, cells in columns.items():
        if half_pair("".join(cells)):
            rows = name_rows(row for row, cell in zip(raw.frame.index, cells, strict=True) if half_pair(cell))
            problems.append(
                f"{path}: {rows}, column {name}: half of a surrogate pair, which is no character; mend or delete it"
            )
    return problems


def _read_by_format(path: str, annotations_path: str | None) -> RawTable:
    file = Path(path)
    suffix = (file.with_suffix("") if file.suffix.lower() == ".gz" else file).suffix.lower()
    if annotations_path is not None and suffix != ".json":
        raise InputError(
            f"annotations_path {annotations_path}: only goes with official VQA questions .json, not {path}"
        )
    if file.is_dir() or (suffix not in FORMATS and not file.exists()):
        from blip2vqa.data.dataset_reader import read_dataset  # datasets takes seconds to import

        return read_dataset(path)
    if not file.exists():
        raise InputError(f"{path}: no such file")
    if is_endless(file):
        raise InputError(f"{path}: a pipe, a socket or a device; write the table to a file, and give that")
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(f"{path}: unknown table format {suffix!r}; give {known} (also .gz) or a datasets folder")
    if annotations_path is None:
        return FORMATS[suffix](file)
    if not Path(annotations_path).is_file():
        raise InputError(f"annotations_path {annotations_path}: no such file")
    return read_json(file, Path(annotations_path))


def _annotators(values: list) -> tuple[list[tuple[str, ...]], list[int]]:
    """Read all annotators' answers, () for rows without, and list the positions of rows that hold something else."""
    answers, malformed = [], []
    for position, value in enumerate(values):
        items = [item.get("answer") if isinstance(item, dict) else item for item in value or []]
        if not isinstance(value or [], list) or not all(isinstance(item, str) for item in items):
            malformed.append(position)
            items = []
        answers.append(tuple(items) if any(item.strip() for item in items) else ())
    return answers, malformed


def _missing_column(path: str, column: str, columns: list[str]) -> str:
    problem = f"{path}: no column {column}; its columns are {', '.join(columns)}"
    if column == "answer" and "question_id" in columns:
        return f"{problem} (official VQA questions need annotations_path too)"
    if column == "caption" and {"question", "answer"} <= set(columns):
        return f"{problem}: a table of questions, which goes without --task caption"
    near = difflib.get_close_matches(column, [name.lower() for name in columns], n=1, cutoff=0.5)
    near = next((name for name in columns if near and name.lower() == near[0]), None)
    return f'{problem}; rename "{near}" to "{column}"?' if near else problem
