"""Reads Excel files."""

import logging
from pathlib import Path

import pandas as pd

from blip2vqa.data.raw_table import RawTable, as_text, from_columns
from blip2vqa.utils.errors import InputError

logger = logging.getLogger(__name__)


def read_xlsx(path: Path) -> RawTable:
    """Read the first sheet of an Excel file."""
    try:
        with pd.ExcelFile(path, engine="openpyxl") as book:
            sheets = book.sheet_names
            frame = book.parse(sheets[0], header=None, dtype=object, keep_default_na=False, na_values=[])
    except ImportError as error:
        raise InputError(f"{path}: reading .xlsx needs a library: pip install openpyxl") from error
    except Exception as error:  # a zip file that is damaged, XML that is none, a sheet that is not there
        raise InputError(f"{path}: not a readable Excel file: {next(iter(str(error).splitlines()), '')}") from error
    if len(sheets) > 1:
        logger.warning("%s: the sheet %s is read, and %s are not", path, sheets[0], ", ".join(map(str, sheets[1:])))
    if frame.empty:
        return RawTable(frame)
    names, rows = frame.iloc[0].map(as_text).tolist(), frame.iloc[1:]
    filled = (rows.map(as_text) != "").any(axis="columns")
    rows = rows[filled]
    cells = dict(zip(range(len(names)), (rows[column].tolist() for column in rows), strict=True))
    return from_columns(path, names, list(cells.values()), (rows.index + 1).tolist())
