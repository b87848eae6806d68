"""Predictions of any system, read from a file and matched to the questions that they answer."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from blip2vqa.data.columns import ColumnNames, find_column
from blip2vqa.data.examples import Example
from blip2vqa.data.readers import parse_document
from blip2vqa.data.tables import read_raw
from blip2vqa.utils.errors import InputError, collect_errors
from blip2vqa.utils.strict_json import shown
from blip2vqa.utils.terminal import half_pair

SHOWN = 5  # mistakes named in an error; the rest is counted
BESIDE = ("confidence", "probability_right", "status", "base_answer", "swapped_answer", "blind_answer")
"""Columns that this package writes beside the answers."""


def read_predictions(path: str | Path, examples: Sequence[Example], columns: ColumnNames | None = None) -> list[str]:
    """Read what any system predicted for `examples`, one text each in their order; see `match_predictions`."""
    return match_predictions(path, examples, columns)["generated_answer"].tolist()


def match_predictions(
    path: str | Path, examples: Sequence[Example], columns: ColumnNames | None = None
) -> pd.DataFrame:
    """Read what any system predicted for `examples`, one row each in their order, all of it text.

    The column `generated_answer` is always there; those of `BESIDE` where the file has them.

    `path` is the official results JSON, `[{"question_id": …, "answer": …}]`, matched to `example.extra["question_id"]`;
    or a table with `generated_answer`, or a column of another usual name: matched by `question_id` where both sides have it,
    else row by row, with the names of images and the questions compared where the table has them. A table with more rows than
    `examples`, some having been left out, is matched by these two columns. Raises `InputError` with how many do not match,
    and the first few.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"predictions {path}: no such file")
    columns = columns or ColumnNames()
    official = _read_results_json(path) if path.suffix.lower() == ".json" and not columns.prediction else None
    table = _usual_columns(path, columns) if official is None else official
    ids = [example.extra.get("question_id", "") for example in examples]
    if official is not None and not any(ids):
        # What inference.py writes for a table without question_id has the rows' numbers in their place.
        rows = [str(example.row) for example in examples]
        ids = rows if set(rows) == set(official["question_id"]) else ids
    if official is not None or ("question_id" in table and any(ids)):
        return _match_by_id(path, table, ids)
    return _match_by_row(path, table, examples)


def _usual_columns(path: Path, columns: ColumnNames) -> pd.DataFrame:
    """Read a table of predictions, with the columns that count here under their documented names."""
    table = read_raw(str(path)).frame
    name, known = f"predictions {path}", list(table)
    said = find_column(name, known, "prediction", columns.prediction)
    if said is None:
        raise InputError(
            f"{name}: no column generated_answer; it has {', '.join(known)}; name the predictions by --prediction_column"
        )
    found = {"generated_answer": said, "question_id": "question_id" if "question_id" in known else None}
    # What the user says of the other table's columns may be true of this one, too.
    for column, kind, asked in (("image_name", "image", columns.image), ("question", "question", columns.question)):
        found[column] = collect_errors([], find_column, name, known, kind, asked if asked in known else None)
    if not columns.prediction:  # a column that the user names is perhaps not what those of `BESIDE` are about
        found |= {column: column for column in BESIDE if column in known}
    return pd.DataFrame({column: table[own] for column, own in found.items() if own})


def _read_results_json(path: Path) -> pd.DataFrame | None:
    """Read the official results; None for another list of objects, which is a table like any other."""
    results = parse_document(path)
    if not isinstance(results, list):
        raise InputError(f'predictions {path}: must be a list of {{"question_id", "answer"}}')
    keys = {key for result in results if isinstance(result, dict) for key in result}
    if collect_errors([], find_column, "", list(keys - {"answer"}), "prediction"):
        return None
    for position, result in enumerate(results):
        if not isinstance(result, dict) or not {"question_id", "answer"} <= result.keys():
            raise InputError(f'predictions {path}: entry {position} is not an object with "question_id" and "answer"')
        for name in ("question_id", "answer"):  # numbers are text by now
            if not isinstance(result[name], str) or half_pair(result[name]):
                raise InputError(
                    f"predictions {path}: entry {position} has {name} {shown(result[name])}; it must be text"
                )
    rows = [(result["question_id"], result["answer"]) for result in results]
    return pd.DataFrame(rows, columns=["question_id", "generated_answer"], dtype=object)


def _match_by_id(path: Path, table: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    if not all(ids):
        raise InputError(f"predictions {path}: are matched by question_id, which the table of questions does not have")
    places = {name: place for place, name in enumerate(table["question_id"])}
    known = set(ids)
    wrong = {
        "given more than once": _repeated(table["question_id"].tolist()),
        "more than once in the table of questions": _repeated(ids),
        "missing from the predictions": [name for name in ids if name not in places],
        "unknown to the table of questions": [name for name in places if name not in known],
    }
    problems = [
        f"predictions {path}: {len(names)} question_id {what}: {', '.join(names[:SHOWN])}{' …' * (len(names) > SHOWN)}"
        for what, names in wrong.items()
        if names
    ]
    if problems:
        raise InputError(*problems)
    return table.iloc[[places[name] for name in ids]]


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _without_folders(*tables: list[str]) -> list[list[str]]:
    """Take the folders off the names of images, which another machine has elsewhere, where the rest tells them apart."""
    tables = [[name.replace("\\", "/") for name in names] for names in tables]
    files = [[name.rpartition("/")[2] for name in names] for names in tables]
    told_apart = all(len(set(short)) == len(set(names)) for short, names in zip(files, tables, strict=True))
    return files if told_apart else tables


def _match_by_row(path: Path, table: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    columns = [name for name in ("image_name", "question") if name in table and any(getattr(e, name) for e in examples)]
    given = {name: [" ".join(text.split()) for text in table[name]] for name in columns}
    wanted = {name: [" ".join(getattr(example, name).split()) for example in examples] for name in columns}
    if "image_name" in columns:
        given["image_name"], wanted["image_name"] = _without_folders(given["image_name"], wanted["image_name"])
    given = list(zip(*given.values(), strict=True)) or [()] * len(table)
    wanted = list(zip(*wanted.values(), strict=True)) or [()] * len(examples)
    if given != wanted and len({*given}) == len(given) and {*given} == {*wanted} and len(given) == len(wanted):
        places = {key: place for place, key in enumerate(given)}  # the same rows in another order, no two alike
        unlike, what, order = [], "", [places[key] for key in wanted]
    elif len(given) == len(wanted):
        unlike = [
            f"{', '.join(one)} for {', '.join(other)}" for one, other in zip(given, wanted, strict=True) if one != other
        ]
        what, order = "rows are of other questions or out of order", list(range(len(given)))
    elif len(columns) == 2:
        # The predictions also cover rows left out for their images: a question asked twice is taken in its order.
        positions = defaultdict(list)
        for position, key in reversed(list(enumerate(given))):
            positions[key].append(position)
        order = [positions[key].pop() if positions[key] else None for key in wanted]
        unlike = [", ".join(key) for key, position in zip(wanted, order, strict=True) if position is None]
        what = "questions are not among them"
    else:
        raise InputError(
            f"predictions {path}: {len(given)} rows for {len(wanted)} questions; without image_name and question in it, "
            "there must be one row for each, in the same order"
        )
    if unlike:
        raise InputError(f"predictions {path}: {len(unlike)} {what}: {'; '.join(unlike[:SHOWN])}")
    return table.iloc[order]
