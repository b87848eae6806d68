"""Writes the table of predictions: filled batch by batch, resumed after an interruption, written whole or not at all."""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NotRequired

import pandas as pd

from blip2vqa.data.journal import Journal, Kept, Share
from blip2vqa.data.readers import to_csv
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import write_json_atomic, write_text_atomic

logger = logging.getLogger(__name__)

RESULT_COLUMNS = ("generated_answer", "confidence", "probability_right", "status", "ranked_answers", "adapter")
UNSURE = "unsure"
"""Status of a row whose answer was too unlikely to be right, and is left out."""


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table of text in the format that the path's ending names: JSON, a list of objects; JSONL; else CSV."""
    ending = Path(path).suffix.lower()
    if ending == ".jsonl":
        rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_dict("records"))
        write_text_atomic(path, "".join(rows))
    elif ending == ".json":
        write_json_atomic(path, table.to_dict("records"))
    else:
        write_text_atomic(path, to_csv(table))


class KeptRow(Kept):
    """What is kept of one row."""

    row: int
    status: str
    adapter: NotRequired[str]
    ranked: NotRequired[list[list[str | Share]]]
    probability_right: NotRequired[Share]


class PredictionsTable:
    """Keeps results of `inference.py` in a journal beside the output until every row has one, and writes them.

    Args:
        output_path: ends with .csv, .jsonl, or with .json for the official results format of VQA.
        table: the input table; its columns and cells stand in the output as they are, its index names the rows as
            `Example.row` does. A column named like one of `RESULT_COLUMNS` is written as `input_<name>`, with a warning.
        run_key: what the results depend on; a hash of `table` is added. See `Journal`, also for `others` and `overwrite`.
        min_probability: answers that are right with a smaller probability are left out of the output.

    Raises `InputError` as `Journal` does, and for a table whose columns or question ids cannot be written.
    """

    def __init__(
        self,
        output_path: str | Path,
        table: pd.DataFrame,
        run_key: dict,
        overwrite: bool = False,
        others: Iterable[str | Path] = (),
        min_probability: float = 0.0,
    ):
        self.output_path, self.min_probability = Path(output_path), min_probability
        self._table = table
        renamed = {name: f"input_{name}" for name in table.columns if name in RESULT_COLUMNS}
        clash = sorted(set(renamed.values()) & set(table.columns))
        if clash:
            raise InputError(f"table: columns {clash} are in the way of the results' own; rename them")
        self._ids = _question_ids(self.output_path, table) if self.output_path.suffix.lower() == ".json" else None
        self._columns = [renamed.get(name, name) for name in table.columns]
        key = run_key | {"input_table": _table_hash(table)}
        self._journal = Journal(output_path, key, others=[*others], overwrite=overwrite, kept=KeptRow)
        self.journal_path = self._journal.path
        for old, new in renamed.items() if self._ids is None else ():
            logger.warning("%s: the table's own column %s is written as %s", self.output_path, old, new)

    @property
    def done(self) -> set[int]:
        """Return the rows (as in `Example.row`) answered so far; one whose image was bad is left out, to be tried again."""
        return {row for row, entry in self._journal.results.items() if entry["status"] == "ok"}

    def add(self, results: Iterable[dict]) -> None:
        """Keep results, each with the keys row, status ("ok", or why there is no answer), answer and confidence.

        If given, also `adapter`, the name of the one that answered, `probability_right`, 0 to 1, and `ranked`, the likeliest
        answers of a list with their probabilities. Results survive a kill once this returns. A row given twice keeps the
        later result.
        """
        entries = [{"answer": "", "confidence": None, **result, "row": int(result["row"])} for result in results]
        for entry in entries:
            if entry["confidence"] is not None:
                entry["confidence"] = float(entry["confidence"]) if math.isfinite(entry["confidence"]) else None
            if "ranked" in entry:
                entry["ranked"] = [(name, round(value, 6)) for name, value in entry["ranked"]]
        self._journal.add(entries)

    def finish(self, beside: Callable[[pd.DataFrame], None] | None = None) -> pd.DataFrame:
        """Write the output, remove the journal, and return the table written.

        The columns of the input in their order, then `generated_answer`, `confidence` (0 to 1, empty without an answer), where
        it is known `probability_right` (0 to 1), and `status`, which is `UNSURE` for answers left out; where types of questions
        have adapters of their own also `adapter`, and where answers were ranked `ranked_answers`, JSON of [answer, probability]
        pairs. As .json: a list of objects with `question_id` and `answer`.

        `beside`: writes the other files that belong to the output; the journal stays until it has. Raises ValueError when rows
        are missing, `InputError` when the output has appeared in the meantime.
        """
        rows, results = self._table.index.tolist(), self._journal.results
        missing = [row for row in rows if row not in results]
        if missing:
            raise ValueError(f"{len(missing)} rows have no result yet, the first {missing[:5]}")
        entries = [self._if_sure(results[row]) for row in rows]
        output = self._table.set_axis(self._columns, axis="columns").reset_index(drop=True)
        output["generated_answer"] = [entry["answer"] for entry in entries]
        output["confidence"] = [
            "" if entry["confidence"] is None else f"{entry['confidence']:.6f}" for entry in entries
        ]
        if any("probability_right" in entry for entry in entries):
            output["probability_right"] = [
                f"{entry['probability_right']:.4f}" if "probability_right" in entry else "" for entry in entries
            ]
        output["status"] = [entry["status"] for entry in entries]
        if any("adapter" in entry for entry in entries):
            output["adapter"] = [entry.get("adapter", "") for entry in entries]
        if any("ranked" in entry for entry in entries):
            output["ranked_answers"] = [json.dumps(entry.get("ranked", []), ensure_ascii=False) for entry in entries]

        def write() -> None:
            if self._ids is None:
                write_table(self.output_path, output)
            else:
                pairs = zip(self._ids, output["generated_answer"], strict=True)
                write_json_atomic(self.output_path, [{"question_id": name, "answer": said} for name, said in pairs])
            if beside:
                beside(output)

        self._journal.finish(write)
        return output

    def _if_sure(self, entry: dict) -> dict:
        sure = entry.get("probability_right", 1.0) >= self.min_probability
        return (
            entry if sure else {**entry, "answer": "", "status": UNSURE} | ({"ranked": []} if "ranked" in entry else {})
        )

    def close(self) -> None:
        """Close the journal, which stays for the next run unless it was finished."""
        self._journal.close()


def _question_ids(path: Path, table: pd.DataFrame) -> list[int | str]:
    """Return the id of each row, a number where it is one; where the table has none it is the row's number, which is said.

    Raises `InputError` for an id that two rows would have.
    """
    given = table["question_id"].tolist() if "question_id" in table else [""] * len(table)
    names = [text.strip() or str(row) for text, row in zip(given, table.index.tolist(), strict=True)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"--output_path {path}: the official results need another question_id in each row; {len(twice)} are there more "
            f"than once, the first {twice[0]!r}; write a .csv, or mend the table's question_id"
        )
    absent = sum(not text.strip() for text in given)
    if absent:
        logger.warning("%s: %s rows have no question_id: their row number stands in its place", path, f"{absent:,}")
    return [int(name) if name.isascii() and name.isdigit() and str(int(name)) == name else name for name in names]


def _table_hash(table: pd.DataFrame) -> str:
    cells = [list(map(str, table.columns)), table.index.tolist(), table.astype(str).to_numpy().tolist()]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()
