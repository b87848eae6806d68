"""Read the files of the Amazon Berkeley Objects archive line by line, plain or gzipped, and name any damage."""

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from isal import igzip, isal_zlib

from blip2vqa.utils.errors import InputError

CHUNK, MAX_LINE, MAX_TABLE = 2**18, 2**24, 2**28  # bytes; the archive's table has 2**24


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines without their ends, unpacked where it is gzipped.

    Raises `InputError` for a file that is damaged or cannot be read, with the number of the last whole line.
    """
    number, rest = 0, b""
    try:
        with igzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            while chunk := file.read1(CHUNK):  # twice as fast as line by line, and nothing before a break is lost
                data = rest + chunk
                *lines, rest = (data if number else data.removeprefix(codecs.BOM_UTF8)).split(b"\n")
                for line in lines:
                    number += 1
                    yield line
                if len(rest) > MAX_LINE:
                    raise InputError(
                        f"{path}: line {number + 1:,}: longer than {MAX_LINE:,} bytes; one listing a line is expected"
                    )
            if rest:
                yield rest
    except EOFError as error:
        raise InputError(f"{path}: cut off after line {_whole_lines(path):,}; download it again") from error
    except (igzip.BadGzipFile, isal_zlib.error) as error:
        number = _whole_lines(path)
        what = f"damaged after line {number:,}" if number else "not a gzip file, or a damaged one"
        raise InputError(f"{path}: {what}; download it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _whole_lines(path: Path) -> int:
    """Count the lines of a damaged gzip file before the damage; the standard library hands out all of them."""
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read1(CHUNK):
                number += chunk.count(b"\n")
    except (EOFError, OSError, zlib.error):
        pass
    return number


def read_images_table(path: Path) -> dict[str, str]:
    """Read images.csv(.gz): image id → path inside the folder of pictures. Raises `InputError` for a table that is damaged."""
    data = bytearray()
    for line in read_lines(path):
        data += line + b"\n"
        if len(data) > MAX_TABLE:
            raise InputError(f"{path}: more than {MAX_TABLE:,} bytes when it is unpacked; download it again")
    try:
        rows = csv.reader(data.decode().split("\n"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line:,}: not UTF-8; download it again") from error
    paths = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in ("image_id", "path") if name not in header]
        if missing:
            columns = ", ".join(header) or "none"
            raise InputError(f"{path}: no column {' and '.join(missing)}; its columns are {columns}; download it again")
        id_at, path_at = header.index("image_id"), header.index("path")
        for row in rows:
            if row:
                paths[row[id_at]] = row[path_at]
    except (IndexError, csv.Error) as error:
        problem = "fewer cells than the header" if isinstance(error, IndexError) else error
        raise InputError(f"{path}: line {rows.line_num:,}: {problem}; download it again") from error
    if not paths:
        raise InputError(f"{path}: no pictures in it; download it again")
    return paths
