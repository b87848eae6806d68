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
from pathlib import Path

import pandas as pd

from blip2vqa.data.layouts import JSON_LAYOUTS, TEXT_LAYOUTS, BadLine, find_layout
from blip2vqa.data.official_vqa import is_official, read_vqa
from blip2vqa.data.raw_table import (
    USUAL_COLUMNS,
    RawTable,
    check_size,
    clean_names,
    from_records,
    name_rows,
    refuse_duplicates,
)
from blip2vqa.utils.errors import InputError

logger = logging.getLogger(__name__)

HEADER = 1_000_000
"""In characters: all that is looked at for a CSV's header."""
MAX_UNPACKED = 400_000_000
"""In bytes, of a gzipped table; the largest official one, VQA v2's annotations, has 360 MB, 17 times as much as packed."""
MAX_RATIO, SMALL = 50, 64_000_000
"""Of the unpacked bytes to the packed ones, where the unpacked are not few."""
FLICKR30K = ["image_name", "comment_number"]
JSON_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)  # 1.10 stays 1.10


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
    data, limit = bytearray(), min(MAX_UNPACKED, unpacked_limit(path))
    with gzip.open(path) as file:
        while chunk := file.read(1 << 20):
            data += chunk
            if len(data) > limit:
                raise InputError(
                    f"{path}: more than {limit:,} bytes when it is unpacked; if that is right, unpack it by gunzip, and "
                    "give the unpacked file"
                )
    return data


def unpacked_limit(path: Path) -> int:
    """Compute how many bytes a packed file may hold, by its own size."""
    return max(SMALL, MAX_RATIO * path.stat().st_size)


def read_txt(path: Path) -> RawTable:
    """Read a file in one of TEXT_LAYOUTS, which have no header, else a table as `read_csv` does."""
    text = read_text(path)
    numbered = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n?|\n", text), 1) if line.strip()]
    lines = [line for _, line in numbered]
    layout = find_layout(TEXT_LAYOUTS, lines)
    if layout is None:
        return _parse_csv(path, text)
    try:
        rows = layout.rows(lines)
    except BadLine as error:
        place, reason = error.args
        raise InputError(f"{path}: read as {layout.name}: line {numbered[place][0]}: {reason}") from error
    return from_records(path, rows, [number for number, _ in numbered[:: len(lines) // len(rows)]], layout.name)


def read_csv(path: Path) -> RawTable:
    """Read a table separated by commas, semicolons, tabs or "|", whose quoted cells may hold line breaks.

    Blank rows are skipped; every cell is text, an absent one "".
    """
    return _parse_csv(path, read_text(path))


def _parse_csv(path: Path, text: str) -> RawTable:
    body = text.lstrip("\r\n")
    before = text[: -len(body)]
    skipped = before.count("\n") or before.count("\r")
    try:
        headers = {
            mark: clean_names(next(csv.reader(io.StringIO(body[:HEADER], newline=""), delimiter=mark)))
            for mark in ",;\t|"
        }
        delimiter = max(headers, key=lambda mark: (_count_usual(headers[mark]), len(headers[mark])))
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
    refuse_duplicates(path, headers[delimiter])
    blank = (frame.map(str.strip) == "").all(axis="columns")
    frame = frame[~blank]
    if headers[delimiter][:2] != FLICKR30K or frame.shape[1] != 3:
        return RawTable(frame)
    # One row of the published file has no mark behind the number: "4   A dog runs across the grass ."
    number, comment = headers[delimiter][1:]
    parts = frame[number].str.extract(r"^\s*(\d+)\s+(\S.*)$")
    joined = (frame[comment].str.strip() == "") & parts[1].notna()
    frame = frame.assign(
        **{number: frame[number].mask(joined, parts[0]), comment: frame[comment].mask(joined, parts[1])}
    )
    return RawTable(frame, layout="Flickr30k")


def _count_usual(names: list[str]) -> int:
    return len({name.lower() for name in names} & USUAL_COLUMNS)


def to_csv(table: pd.DataFrame) -> str:
    """Write a table of text as CSV that reads back the same with `pandas.read_csv(dtype=str, keep_default_na=False)`."""
    # The csv module leaves a lone carriage return unquoted, which readers take for the end of the row.
    carriage_return = any("\r" in str(text) for text in [*table.columns, *table.to_numpy().ravel()])
    return table.to_csv(index=False, quoting=csv.QUOTE_ALL if carriage_return else csv.QUOTE_MINIMAL)


def read_json(path: Path, annotations_path: Path | None = None) -> RawTable:
    """Read a list of objects, the official VQA questions file (with its annotations), or one of JSON_LAYOUTS."""
    data = parse_document(path)
    if is_official(data):
        annotations = parse_document(annotations_path) if annotations_path else None
        return read_vqa(path, data, annotations_path, annotations)
    if annotations_path is not None:
        raise InputError(f'{path}: no official VQA file with "questions", so annotations_path cannot go with it')
    if isinstance(data, list) and not all(isinstance(item, dict) for item in data):
        wrong = [number for number, item in enumerate(data, 1) if not isinstance(item, dict)]
        raise InputError(f"{path}: {name_rows(wrong, 'item')}: no object; a list of objects is expected, one a row")
    layout = find_layout(JSON_LAYOUTS, data)
    if layout:
        rows = layout.rows(data)
        return from_records(path, rows, range(1, len(rows) + 1), layout.name)
    if isinstance(data, list):
        return from_records(path, data, range(1, len(data) + 1))
    raise InputError(
        f'{path}: neither a list of objects nor an official VQA file with "questions" nor another layout known here '
        f"({', '.join(layout.name for layout in JSON_LAYOUTS)})"
    )


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
    return from_records(path, list(records.values()), records)


def parse_document(path: Path) -> object:
    """Parse a JSON file of any encoding that `read_text` knows; numbers come as the texts that they are written as."""
    try:
        return JSON_DECODER.decode(read_text(path).strip())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{path}: JSON nested too deeply") from error
