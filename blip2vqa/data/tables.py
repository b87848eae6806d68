"""Reads tables of questions or captions in whatever format the user has them."""

from pathlib import Path

from blip2vqa.data.columns import ColumnNames
from blip2vqa.data.layouts import KARPATHY
from blip2vqa.data.raw_table import RawTable, as_text, name_rows
from blip2vqa.data.readers import read_csv, read_json, read_jsonl, read_txt
from blip2vqa.data.table_checks import Table, check_table
from blip2vqa.utils.errors import InputError, collect_errors, raise_all
from blip2vqa.utils.files import is_endless
from blip2vqa.utils.terminal import half_pair

# Each also with .gz after it.
FORMATS = {**dict.fromkeys((".csv", ".tsv"), read_csv), **dict.fromkeys((".txt", ".token"), read_txt)} | {
    ".jsonl": read_jsonl,
    ".json": read_json,
}
BINARY_FORMATS = (".parquet", ".xlsx")


def load_table(
    path: str, annotations_path: str | None, *, columns: ColumnNames | None = None, **options
) -> tuple[Table | None, list[str]]:
    """Read a table of a format in FORMATS or BINARY_FORMATS, the official VQA JSON pair, a `datasets` folder or a Hub id.

    `options`: as in `check_table`. Returns as much of the table as could be read, and every problem found: no such file,
    unreadable, missing columns, no rows, rows that cannot be used.
    """
    problems: list[str] = []
    raw = collect_errors(problems, read_raw, str(path), annotations_path, columns)
    return (None, problems) if raw is None else check_table(raw, path, columns=columns, **options)


def read_raw(
    path: str, annotations_path: str | None = None, columns: ColumnNames | None = None, split: str | None = None
) -> RawTable:
    """Read the table by its format, without checking it. Raises InputError for a file that is missing or not understood.

    `path` may have ":SPLIT" after it, where the table has several; `split`: which one to take of Karpathy's without it. Of the
    columns' names that of the pictures alone counts here, for tables that hold several pictures a row.
    """
    raw = _read_by_format(path, annotations_path, columns, split)
    raise_all(_half_pairs(raw, path))
    return raw


def _half_pairs(raw: RawTable, path: str) -> list[str]:
    """Name the cells that hold half of a surrogate pair, as JSON can write it: no file and no tokenizer takes such a text."""
    columns = {name: raw.frame[name].tolist() for name in raw.frame}
    columns |= {
        name: [as_text(value) for value in values] for name, values in raw.nested.items() if name not in columns
    }
    problems = []
    for name, cells in columns.items():
        if half_pair("".join(cells)):
            rows = name_rows(row for row, cell in zip(raw.frame.index, cells, strict=True) if half_pair(cell))
            problems.append(
                f"{path}: {rows}, column {name}: half of a surrogate pair, which is no character; mend or delete it"
            )
    return problems


def _read_by_format(
    path: str, annotations_path: str | None, columns: ColumnNames | None, split: str | None
) -> RawTable:
    file = Path(path)
    head, colon, named = path.rpartition(":")
    if colon and not file.exists() and Path(head).is_file():
        file = Path(head)
    else:
        named = ""
    suffix = (file.with_suffix("") if file.suffix.lower() == ".gz" else file).suffix.lower()
    if annotations_path is not None and suffix != ".json":
        raise InputError(
            f"annotations_path {annotations_path}: only goes with official VQA questions .json, not {path}"
        )
    image = columns.image if columns else None
    if file.is_dir() or (suffix not in (*FORMATS, *BINARY_FORMATS) and not file.exists()):
        from blip2vqa.data.dataset_reader import read_dataset  # datasets takes seconds to import

        return read_dataset(path, image)
    if not file.exists():
        raise InputError(f"{path}: no such file")
    if is_endless(file):
        raise InputError(f"{path}: a pipe, a socket or a device; write the table to a file, and give that")
    if file.suffix.lower() == ".parquet":
        from blip2vqa.data.dataset_reader import read_parquet

        raw = read_parquet(str(file), image)
    elif file.suffix.lower() == ".xlsx":
        from blip2vqa.data.excel import read_xlsx

        raw = read_xlsx(file)
    elif suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(
            f"{path}: unknown table format {file.suffix!r}; give {known} (also .gz), {', '.join(BINARY_FORMATS)} or a datasets "
            "folder"
        )
    elif annotations_path is None:
        raw = FORMATS[suffix](file)
    elif not Path(annotations_path).is_file():
        raise InputError(f"annotations_path {annotations_path}: no such file")
    else:
        raw = read_json(file, Path(annotations_path))
    split = named or (split if raw.layout == KARPATHY else None)
    return _of_split(raw, path, split) if split else raw


def _of_split(raw: RawTable, path: str, split: str) -> RawTable:
    """Take one split of a table that has a column of them."""
    if "split" not in raw.frame:
        raise InputError(f"{path}: the table has no column split, so no split can be named")
    splits = raw.frame["split"].str.strip()
    kept = [position for position, name in enumerate(splits) if name == split]
    if not kept:
        more = "; restval is read as part of train" if raw.layout == KARPATHY and split == "restval" else ""
        raise InputError(f"{path}: no split {split!r}; it has {', '.join(dict.fromkeys(splits))}{more}")
    return raw.take(kept)
