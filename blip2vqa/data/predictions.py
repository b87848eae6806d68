"""Predictions of any system, read from a file and matched to the questions that they answer."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from blip2vqa.data.examples import Example
from blip2vqa.data.readers import read_csv, read_jsonl
from blip2vqa.utils.errors import InputError

SHOWN = 5  # mistakes named in an error; the rest is counted


def read_predictions(path: str | Path, examples: Sequence[Example]) -> list[str]:
    """Read what any system predicted for `examples`, one text each in their order.

    `path` is the official results JSON, `[{"question_id": …, "answer": …}]`, matched to `example.extra["question_id"]`;
    or a CSV or JSONL with `generated_answer`: matched by `question_id` where both sides have it, else row by row, with
    `image_name` and `question` compared where the CSV has them. A CSV with more rows than `examples`, some having been
    left out for their images, is matched by these two columns. Raises `InputError` with how many do not match, and the
    first few.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"predictions {path}: no such file")
    is_json = path.suffix.lower() == ".json"
    try:
        read = read_jsonl if path.suffix.lower() == ".jsonl" else read_csv
        table = _read_results_json(path) if is_json else read(path).frame
    except (ValueError, OSError) as error:
        raise InputError(f"predictions {path}: cannot be read: {' '.join(str(error).split())}") from error
    if "generated_answer" not in table:
        raise InputError(f"predictions {path}: no column generated_answer; it has {', '.join(table.columns)}")
    ids = [example.extra.get("question_id", "") for example in examples]
    if is_json and not any(ids):
        # What inference.py writes for a table without question_id has the rows' numbers in their place.
        rows = [str(example.row) for example in examples]
        ids = rows if set(rows) == set(table["question_id"]) else ids
    if is_json or ("question_id" in table and any(ids)):
        return _match_by_id(path, table, ids)
    return _match_by_row(path, table, examples)


def _read_results_json(path: Path) -> pd.DataFrame:
    results = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(results, list):
        raise InputError(f'predictions {path}: must be a list of {{"question_id", "answer"}}')
    for position, result in enumerate(results):
        if not isinstance(result, dict) or not {"question_id", "answer"} <= result.keys():
            raise InputError(f'predictions {path}: entry {position} is not an object with "question_id" and "answer"')
        if not isinstance(result["answer"], str | int | float):
            raise InputError(f"predictions {path}: entry {position} has answer {result['answer']!r}; it must be text")
    rows = [(str(result["question_id"]), str(result["answer"])) for result in results]
    return pd.DataFrame(rows, columns=["question_id", "generated_answer"], dtype=object)


def _match_by_id(path: Path, table: pd.DataFrame, ids: list[str]) -> list[str]:
    if not all(ids):
        raise InputError(f"predictions {path}: are matched by question_id, which the table of questions does not have")
    answers = dict(zip(table["question_id"], table["generated_answer"], strict=True))
    known = set(ids)
    wrong = {
        "given more than once": _repeated(table["question_id"].tolist()),
        "more than once in the table of questions": _repeated(ids),
        "missing from the predictions": [name for name in ids if name not in answers],
        "unknown to the table of questions": [name for name in answers if name not in known],
    }
    problems = [
        f"predictions {path}: {len(names)} question_id {what}: {', '.join(names[:SHOWN])}{' …' * (len(names) > SHOWN)}"
        for what, names in wrong.items()
        if names
    ]
    if problems:
        raise InputError(*problems)
    return [answers[name] for name in ids]


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _match_by_row(path: Path, table: pd.DataFrame, examples: Sequence[Example]) -> list[str]:
    columns = [name for name in ("image_name", "question") if name in table]
    given = [tuple(" ".join(text.split()) for text in row) for row in table[columns].to_numpy()]
    wanted = [tuple(" ".join(getattr(example, name).split()) for name in columns) for example in examples]
    if len(given) == len(wanted):
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
    return table["generated_answer"].iloc[order].tolist()
