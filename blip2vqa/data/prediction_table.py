"""Writes the table of predictions: filled batch by batch, resumed after an interruption, written whole or not at all."""

import hashlib
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from blip2vqa.data.readers import to_csv
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import write_text_atomic
from blip2vqa.utils.terminal import half_pair

logger = logging.getLogger(__name__)

RESULT_COLUMNS = ("generated_answer", "confidence", "status", "ranked_answers", "adapter")


def partial_path(output_path: str | Path) -> Path:
    """Name the journal of a run that is not finished: `RESULTS.csv` → `RESULTS.csv.partial`."""
    return Path(output_path).with_name(Path(output_path).name + ".partial")


class PredictionsTable:
    """Keeps results of `inference.py` in a journal beside the output until every row has one.

    The journal, `RESULTS.csv.partial`, holds one JSON object a line: first what was run, then one result each. It is
    flushed with every batch, so that a killed run goes on where it was.

    Args:
        table: the input table; its columns and cells stand in the output as they are, its index names the rows as
            `Example.row` does. A column named like one of `RESULT_COLUMNS` is written as `input_<name>`, with a warning.
        run_key: what the results depend on (model, adapter, prompt, decoding, …), in JSON's types. A hash of `table`
            is added.
        overwrite: start anew. A finished output stays in place until the new one replaces it.

    Raises `InputError` when a finished output stands there, or the journal is of another run, unless `overwrite`.
    """

    def __init__(self, output_path: str | Path, table: pd.DataFrame, run_key: dict, overwrite: bool = False):
        self.output_path = Path(output_path)
        self.journal_path = partial_path(output_path)
        self._table = table
        # Through JSON, so that a tuple equals the list it comes back as.
        self._run = json.loads(json.dumps(run_key | {"input_table": _table_hash(table)}))
        self._results: dict[int, dict] = {}
        renamed = {name: f"input_{name}" for name in table.columns if name in RESULT_COLUMNS}
        clash = sorted(set(renamed.values()) & set(table.columns))
        if clash:
            raise InputError(f"table: columns {clash} are in the way of the results' own; rename them")
        for old, new in renamed.items():
            logger.warning("%s: the table's own column %s is written as %s", self.output_path, old, new)
        self._columns = [renamed.get(name, name) for name in table.columns]
        self._open_journal(overwrite)

    def _open_journal(self, overwrite: bool) -> None:
        header, entries, size = (None, [], 0) if overwrite else _read_journal(self.journal_path)
        # An interrupted --overwrite may go on without saying so again: the journal remembers.
        self._replaces = overwrite or bool(header and header["overwrite"])
        if self.output_path.is_dir():
            raise InputError(f"{self.output_path}: is a folder; --output_path names the CSV to write")
        self._keep_what_is_finished()
        if header is not None:
            before, now = header["run"], self._run
            changed = [
                "another table" if key == "input_table" else f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
                for key in sorted(before | now)
                if before.get(key) != now.get(key)
            ]
            if changed:
                raise InputError(
                    f"{self.journal_path}: begun with other settings ({'; '.join(changed)}); repeat that run to finish "
                    "it, name another --output_path, or start anew with --overwrite"
                )
        self._results = {entry["row"]: entry for entry in entries}
        try:
            self.output_path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = open(self.journal_path, "a" if header else "w", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.journal_path}: cannot be written: {error.strerror}") from error
        if header is None:
            self._append([{"run": self._run, "overwrite": self._replaces}])
        else:
            self._journal.truncate(size)  # what a kill left of the last line

    def _keep_what_is_finished(self) -> None:
        if self.output_path.exists() and not self._replaces:
            raise InputError(
                f"{self.output_path}: is already there, finished; score it with --score, name another --output_path, "
                "or start anew with --overwrite"
            )

    @property
    def done(self) -> set[int]:
        """Return the rows (as in `Example.row`) answered so far; one whose image was bad is left out, to be tried again."""
        return {row for row, entry in self._results.items() if entry["status"] == "ok"}

    def add(self, results: Iterable[dict]) -> None:
        """Keep results, each with the keys row, status ("ok", or why there is no answer), answer and confidence.

        If given, also `adapter`, the name of the one that answered, and `ranked`, the likeliest answers of a list with
        their probabilities. Results survive a kill once this returns. A row given twice keeps the later result.
        """
        entries = [{"answer": "", "confidence": None, **result, "row": int(result["row"])} for result in results]
        for entry in entries:
            if entry["confidence"] is not None:
                entry["confidence"] = float(entry["confidence"]) if math.isfinite(entry["confidence"]) else None
            if "ranked" in entry:
                entry["ranked"] = [(name, round(value, 6)) for name, value in entry["ranked"]]
        self._append(entries)
        self._results |= {entry["row"]: entry for entry in entries}

    def _append(self, lines: list[dict]) -> None:
        self._journal.writelines(json.dumps(line) + "\n" for line in lines)
        self._journal.flush()

    def finish(self) -> pd.DataFrame:
        """Write the output, remove the journal, and return the table written.

        The columns of the input in their order, then `generated_answer`, `confidence` (0 to 1, empty without an answer)
        and `status`; where types of questions have adapters of their own also `adapter`, and where answers were ranked
        `ranked_answers`, JSON of [answer, probability] pairs.
        Raises ValueError when rows are missing, `InputError` when the output has appeared in the meantime.
        """
        rows = self._table.index.tolist()
        missing = [row for row in rows if row not in self._results]
        if missing:
            raise ValueError(f"{len(missing)} rows have no result yet, the first {missing[:5]}")
        entries = [self._results[row] for row in rows]
        output = self._table.set_axis(self._columns, axis="columns").reset_index(drop=True)
        output["generated_answer"] = [entry["answer"] for entry in entries]
        output["confidence"] = [
            "" if entry["confidence"] is None else f"{entry['confidence']:.6f}" for entry in entries
        ]
        output["status"] = [entry["status"] for entry in entries]
        if any("adapter" in entry for entry in entries):
            output["adapter"] = [entry.get("adapter", "") for entry in entries]
        if any("ranked" in entry for entry in entries):
            output["ranked_answers"] = [json.dumps(entry.get("ranked", []), ensure_ascii=False) for entry in entries]
        self._keep_what_is_finished()  # written by another process in the meantime
        write_text_atomic(self.output_path, to_csv(output))
        self.close()
        self.journal_path.unlink()
        return output

    def close(self) -> None:
        """Close the journal, which stays for the next run."""
        self._journal.close()


def _table_hash(table: pd.DataFrame) -> str:
    cells = [list(map(str, table.columns)), table.index.tolist(), table.astype(str).to_numpy().tolist()]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _read_journal(path: Path) -> tuple[dict | None, list[dict], int]:
    """Read header, results and length in bytes of a journal's whole lines; no header when there is nothing to go on from."""
    if not path.exists():
        return None, [], 0
    if not path.is_file():
        raise InputError(f"{path}: is no file; remove it, or name another --output_path")
    data = path.read_bytes()
    size = data.rfind(b"\n") + 1  # a line is whole when its end is there
    try:
        lines = [json.loads(line) for line in data[:size].splitlines()]
        header, entries = (lines[0], lines[1:]) if lines else (None, [])
        if not (header is None or _is_header(header)) or not all(map(_is_entry, entries)):
            raise ValueError("not a journal of predictions")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it, or start anew with --overwrite") from error
    return header, entries, size


def _is_header(header: object) -> bool:
    return (
        isinstance(header, dict) and isinstance(header.get("run"), dict) and isinstance(header.get("overwrite"), bool)
    )


def _is_entry(entry: object) -> bool:
    """Whether an entry has what `PredictionsTable.add` writes."""
    if not isinstance(entry, dict):
        return False
    texts = [entry.get("answer"), entry.get("status"), entry.get("adapter", "")]
    row, confidence, ranked = entry.get("row"), entry.get("confidence", ""), entry.get("ranked", [])
    return (
        all(isinstance(text, str) for text in texts)
        and type(row) is int
        and (confidence is None or (type(confidence) in (int, float) and 0 <= confidence < 2))
        and isinstance(ranked, list)
        and not half_pair(json.dumps(entry, ensure_ascii=False))
    )
