"""Reads Excel files."""

import logging
import zipfile
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from blip2vqa.data.raw_table import MAX_CELLS, MAX_COLUMNS, RawTable, as_text, check_size, from_columns
from blip2vqa.data.readers import MAX_UNPACKED, unpacked_limit
from blip2vqa.utils.errors import InputError

logger = logging.getLogger(__name__)


def read_xlsx(path: Path) -> RawTable:
    """Read the first sheet of an Excel file that is not blank, from its first row that is not; empty columns stay out."""
    try:
        from openpyxl import load_workbook

        _check_unpacked(path)
        book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            for sheet in book.worksheets:
                if rows := _rows(path, sheet):
                    break
            sheets, read = book.sheetnames, sheet.title
        finally:
            book.close()
    except ImportError as error:
        raise InputError(f"{path}: reading .xlsx needs a library: pip install openpyxl") from error
    except InputError:
        raise
    except Exception as error:  # a zip file that is damaged, XML that is none, a sheet that is not there
        raise InputError(f"{path}: not a readable Excel file: {next(iter(str(error).splitlines()), '')}") from error
    if others := [name for name in sheets if name != read]:
        logger.warning("%s: the sheet %s is read, and %s are not", path, read, ", ".join(others))
    if not rows:
        return RawTable(pd.DataFrame())
    numbers = list(rows)
    columns = [list(cells) for cells in zip_longest(*rows.values()) if not all(map(_is_blank, cells))]
    names = [as_text(cells[0]) for cells in columns]
    return from_columns(path, names, [cells[1:] for cells in columns], numbers[1:])


def _check_unpacked(path: Path) -> None:
    """Raise `InputError` for a file whose sheets unpack to more than is read."""
    limit = min(MAX_UNPACKED, unpacked_limit(path))
    with zipfile.ZipFile(path) as packed:
        size = sum(part.file_size for part in packed.infolist() if part.filename.endswith((".xml", ".rels")))
    if size > limit:
        raise InputError(
            f"{path}: {size:,} bytes when it is unpacked; at most {limit:,} are read; save the table as CSV"
        )


def _rows(path: Path, sheet) -> dict[int, list]:
    """Read the rows of a sheet that are not blank, by their numbers, each to its last cell that is not."""
    sheet.reset_dimensions()  # what a file says of its size makes rows as long as that
    rows, width = {}, 0
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_value(cell) for cell in row]
        while cells and _is_blank(cells[-1]):
            cells.pop()
        if cells:
            rows[number], width = cells, max(width, len(cells))
            if width > MAX_COLUMNS or width * len(rows) > MAX_CELLS:
                check_size(path, [""] * width, len(rows))
    return rows


def _value(cell) -> object:
    """Return what a cell holds: whole numbers without a point, nothing for an error."""
    value = None if cell.data_type == "e" else cell.value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
