"""Readers of file formats; each returns a RawTable and raises InputError for a file that cannot be understood.

What the table must hold is checked in tables.py.
"""

import codecs
import csv
import gzip
import io
import json
import logging
import re
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from blip2vqa.utils.errors import InputError
from blip2vqa.utils.terminal import half_pair

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

KNOWN_COLUMNS = ("image_name", "question", "answer", "answers", "question_id", "question_type")
VQA_COLUMNS = {
    "answer": "multiple_choice_answer",
    "annotator_question_type": "question_type",
    "answer_type": "answer_type",
}  # column here → key in the official annotations
HEADER = 1_000_000
"""In characters: all that is looked at for a CSV's header."""
MAX_COLUMNS = 1000
MAX_CELLS = 20_000_000
MAX_UNPACKED = 400_000_000
"""In bytes, of a gzipped table; the largest official one, VQA v2's annotations, has 360 MB, 17 times as much as packed."""
MAX_RATIO, SMALL = 50, 64_000_000
"""Of the unpacked bytes to the packed ones, where the unpacked are not few."""
JSON_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)  # 1.10 stays 1.10


@dataclass(frozen=True)
class RawTable:
    """A table as its file holds it."""

    frame: pd.DataFrame
    """Text cells in the file's order; its index is the row as the user sees it: a spreadsheet's row, the header being row 1; a
    line of a JSONL file; else the item, from 1."""
    answers: list | None = None
    """One value a row as the file had it: a list of texts or of {"answer": text}."""
    images: "datasets.Dataset | None" = None
    """A dataset of the same length with the one column `image`, not decoded."""


def name_rows(rows: Iterable, noun: str = "row") -> str:
    """Write "row 3" or "rows 3, 7, 8 and 12 more": the first ten by name, the rest by count."""
    rows = list(rows)
    rest = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return f"{noun}{'s' if len(rows) > 1 else ''} {', '.join(str(row) for row in rows[:10])}{rest}"


def read_text(path: Path) -> str:
    """Read a text file, unpacking `.gz`: UTF-8 with or without a byte order mark, UTF-16 with one, else Windows-1252.

    The last is a guess, and is warned about.
    """
    try:
        data = _unpack(path) if path.suffix.lower() == ".gz" else path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: cut off or damaged ({error}); pack it again") from error
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
        if "\0" not in text:
            logger.warning("%s is not UTF-8: read as Windows-1252 (Latin-1); save it as UTF-8 to be sure", path)
    if "\0" in text:
        raise InputError(f"{path}: not a text file; save the table as CSV (UTF-8)")
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text


def _unpack(path: Path) -> bytearray:
    data, limit = bytearray(), min(MAX_UNPACKED, max(SMALL, MAX_RATIO * path.stat().st_size))
    with gzip.open(path) as file:
        while chunk := file.read(1 << 20):
            data += chunk
            if len(data) > limit:
                raise InputError(
                    f"{path}: more than {limit:,} bytes when it is unpacked; if that is right, unpack it by gunzip, and "
                    "give the unpacked file"
                )
    return data


def clean_names(names: Iterable[str]) -> list[str]:
    """Strip column names; write those known here in lower case, and name empty ones by their position."""
    stripped = [str(name).strip() for name in names]
    named = [name or f"column_{position}" for position, name in enumerate(stripped, 1)]
    return [name.lower() if name.lower() in KNOWN_COLUMNS else name for name in named]


def read_csv(path: Path) -> RawTable:
    """Read a table separated by commas, semicolons or tabs, whose quoted cells may hold line breaks.

    Blank rows are skipped; every cell is text, an absent one "".
    """
    text = read_text(path)
    body = text.lstrip("\r\n")
    before = text[: -len(body)]
    skipped = before.count("\n") or before.count("\r")
    try:
        headers = {
            mark: clean_names(next(csv.reader(io.StringIO(body[:HEADER], newline=""), delimiter=mark)))
            for mark in ",;\t"
        }
        delimiter = max(headers, key=lambda mark: (len(set(headers[mark]) & set(KNOWN_COLUMNS)), len(headers[mark])))
        check_size(path, headers[delimiter], max(body.count("\n"), body.count("\r")))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # The header is read as a row: pandas then counts rows as a spreadsheet does, and cells by the header's.
            options = {"header": None, "dtype": str, "na_filter": False, "skip_blank_lines": False}
            frame = pd.read_csv(io.StringIO(body), sep=delimiter, on_bad_lines="warn", **options)
    except (csv.Error, pd.errors.ParserError) as error:
        opened = re.search(r"EOF inside string starting at row (\d+)", str(error))
        reason = f"the quotation mark opened in row {int(opened[1]) + 1 + skipped} is never closed" if opened else error
        raise InputError(f"{path}: not a readable CSV table: {reason}") from error
    too_long = re.findall(r"Skipping line (\d+): expected", "\n".join(str(warning.message) for warning in caught))
    if too_long:
        rows = name_rows(int(row) + skipped for row in too_long)
        raise InputError(
            f"{path}: {rows}: more cells than the {frame.shape[1]} of the header; "
            f'put quotation marks around texts that hold "{delimiter}"'
        )
    frame.index += 1 + skipped
    frame.columns = headers[delimiter]
    frame = frame.iloc[1:]
    _refuse_duplicates(path, headers[delimiter])
    blank = (frame.map(str.strip) == "").all(axis="columns")
    return RawTable(frame[~blank])


def to_csv(table: pd.DataFrame) -> str:
    """Write a table of text as CSV that reads back the same with `pandas.read_csv(dtype=str, keep_default_na=False)`."""
    # The csv module leaves a lone carriage return unquoted, which readers take for the end of the row.
    carriage_return = any("\r" in str(text) for text in [*table.columns, *table.to_numpy().ravel()])
    return table.to_csv(index=False, quoting=csv.QUOTE_ALL if carriage_return else csv.QUOTE_MINIMAL)


def read_json(path: Path, annotations_path: Path | None = None) -> RawTable:
    """Read a list of objects, or the official VQA questions file (with its annotations)."""
    data = parse_document(path)
    if isinstance(data, dict) and isinstance(data.get("questions"), list):
        return _read_vqa(path, data, annotations_path)
    if annotations_path is not None:
        raise InputError(f'{path}: no official VQA file with "questions", so annotations_path cannot go with it')
    if isinstance(data, list) and all(isinstance(item, dict) for item in data):
        return _from_records(path, data, range(1, len(data) + 1))
    raise InputError(f'{path}: neither a list of objects nor an official VQA file with "questions"')


def read_jsonl(path: Path) -> RawTable:
    """Read one JSON object a line; blank lines are skipped."""
    records, broken = {}, []
    for number, line in enumerate(read_text(path).split("\n"), 1):  # splitlines would break at U+2028 within texts
        line = line.strip()
        if not line:
            continue
        try:
            record = JSON_DECODER.decode(line)
        except (json.JSONDecodeError, RecursionError):
            record = None
        if isinstance(record, dict):
            records[number] = record
        else:
            broken.append(number)
    if broken:
        raise InputError(f"{path}: {name_rows(broken, 'line')}: not a JSON object; one whole object a line is expected")
    return _from_records(path, list(records.values()), records)


def as_text(value: object) -> str:
    """Write a cell as text: texts as they are, None as "", anything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def parse_document(path: Path) -> object:
    """Parse a JSON file of any encoding that `read_text` knows; numbers come as the texts that they are written as."""
    try:
        return JSON_DECODER.decode(read_text(path).strip())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{path}: JSON nested too deeply") from error


def _from_records(path: Path, records: list[dict], rows: Iterable[int]) -> RawTable:
    keys = list(dict.fromkeys(key for record in records for key in record))
    check_size(path, keys, len(records))
    names = clean_names(keys)
    _refuse_duplicates(path, names)
    cells = {name: [record.get(key) for record in records] for name, key in zip(names, keys, strict=True)}
    try:
        frame = pd.DataFrame({name: map(as_text, values) for name, values in cells.items()}, index=rows, dtype=object)
    except RecursionError as error:
        raise InputError(f"{path}: JSON nested too deeply") from error
    return RawTable(frame, cells.get("answers"))


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


def _refuse_duplicates(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {', '.join(twice)} stands there more than once; rename or delete one")


def _read_vqa(path: Path, data: dict, annotations_path: Path | None) -> RawTable:
    """Read the official pair of files (https://visualqa.org/download.html); pictures are named as COCO names them."""
    questions = data["questions"]
    try:
        ids = [str(item["question_id"]) for item in questions]
        # "test-dev2015" is a subset of the questions about the pictures of "test2015"
        subtype = str(data.get("data_subtype", "")).replace("-dev", "")
        prefix = f"COCO_{subtype}_" if subtype else ""  # COCO of 2017 has no prefix
        frame = pd.DataFrame(
            {
                "image_name": [f"{prefix}{int(item['image_id']):012d}.jpg" for item in questions],
                "question": [as_text(item["question"]) for item in questions],
                "question_id": ids,
            },
            index=range(1, len(questions) + 1),
            dtype=object,
        )
    except (KeyError, TypeError, ValueError) as error:
        needs = "every question needs question_id, image_id (a number) and question"
        raise InputError(f"{path}: {needs} ({type(error).__name__}: {error})") from error
    if annotations_path is None:
        return RawTable(frame)

    annotations = parse_document(annotations_path)
    try:
        by_id = {str(item["question_id"]): item for item in annotations["annotations"]}
        found = [by_id.get(id, {"answers": []}) for id in ids]
        answers = [[as_text(answer["answer"]) for answer in item["answers"]] for item in found]
        for column, key in VQA_COLUMNS.items():
            frame[column] = pd.Series([as_text(item.get(key)) for item in found], frame.index, dtype=object)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{annotations_path}: not an official VQA annotations file ({reason})") from error
    missing = [id for id in ids if id not in by_id]
    if ids and len(missing) == len(ids):
        raise InputError(f"{annotations_path}: no annotation for any question of {path}: these belong to another file")
    if missing:
        raise InputError(
            f"{annotations_path}: no annotation for {len(missing)} of {len(ids)} questions of {path}: "
            f"{name_rows(missing, 'question_id')}"
        )
    return RawTable(frame, answers)
