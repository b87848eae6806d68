"""Makes reports of answers that are in memory: of a run, a table or systems just finished."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
from PIL import Image

from blip2vqa.adapters.validation.safety import MANIFEST
from blip2vqa.data.examples import Example
from blip2vqa.data.images import BadImage, open_image
from blip2vqa.data.prediction_table import UNSURE
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.evaluation.metrics import main_metric
from blip2vqa.evaluation.scores import score
from blip2vqa.evaluation.verdict import BLIND, ROWS, verdict
from blip2vqa.reporting.pages.report import Report, write_report
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.formatting import percent
from blip2vqa.utils.strict_json import shown

COLUMNS = {"base_answer": "base", "generated_answer": "adapter", "swapped_answer": "swapped", "blind_answer": "blind"}
"""Columns of a run's predictions.csv → the keys of `ROWS`."""
CERTAIN = {"confidences": "confidence", "probabilities": "probability_right"}
"""Fields of `Report` → the columns that hold them."""


def report_path(results: str | Path) -> Path:
    """Name the report that stands beside a table of answers: `RESULTS.csv` → `RESULTS.report.html`; of a run, `report.html`."""
    path = Path(results)
    return path / "report.html" if path.is_dir() else path.with_suffix(".report.html")


def make_report(
    title: str,
    examples: Sequence[Example],
    answers: Mapping[str, Sequence[str]],
    judged: str,
    *,
    captions: bool = False,
    before: str | None = None,
    swapped: str | None = None,
    blind: str | None = None,
    left_out: Sequence[bool] = (),
    **shown,
) -> Report:
    """Score the answers, with intervals, and say in one sentence what they are worth.

    `answers`: of each system by its name, one an example. `blind`: the one that sees no picture, else questions are answered by
    `evaluation.compare`'s; `left_out`: of each judged answer, whether it was left out; `shown`: further fields of `Report`.
    """
    if captions:
        systems, notes = [{"name": name} | score(examples, said, task="caption") for name, said in answers.items()], []
    else:
        runs = [SystemRun(name, list(said), "", None, "none", "") for name, said in answers.items()]
        found = compare(examples, runs)
        systems, notes = found["systems"], found["notes"]
        if blind:
            systems = [row for row in systems if row["name"] != BLIND]
            notes = [note for note in notes if BLIND not in note and "pairs" not in note]
    by_name = {row["name"]: row for row in systems}
    known = {"adapter": by_name[judged], "blind": by_name.get(blind or BLIND), "swapped": by_name.get(swapped)}
    sentence = _sentence(known)
    if any(left_out):
        kept = [place for place, left in enumerate(left_out) if not left]
        sure = score([examples[place] for place in kept], [answers[judged][place] for place in kept])
        systems.insert(list(answers).index(judged) + 1, {"name": ROWS["answered"], **sure})
        sentence = (
            "No question was answered: no answer was sure enough."
            if not kept
            else (
                f"{percent(len(kept) / len(examples))} of {len(examples):,} questions were answered, and "
                f"{percent(sure['accuracy'])} of these answers are right; the others were not sure enough."
            )
        )
    fields = {"before": before, "swapped": swapped, "left_out": left_out, "notes": notes, "systems": systems}
    return Report(title, sentence, examples, dict(answers), judged, **fields, **shown)


def _sentence(scores: Mapping[str, dict | None]) -> str:
    judged = scores["adapter"]
    main = main_metric(judged)
    if main is None:
        return "The table has no answers to compare with."
    value = f"{percent(judged[main.name])} of {judged['n']:,} answers are right"
    if not main.is_share:
        value = f"{main.title} {judged[main.name]:.3f} on {judged['n']:,} pictures"
    if not scores["blind"]:
        return f"{value}."
    return f"{value}: {verdict(scores, tried_swapping=False)}."


def report_run(folder: Path, predictions: pd.DataFrame, examples: Sequence[Example]) -> None:
    """Write the report of a finished run into its folder: its table of predictions, one row a validation example."""
    write_report(report_path(folder), report_of_table(folder, folder.name, predictions, examples), _open)


def report_answers(path: Path, title: str, examples: Sequence[Example], written: pd.DataFrame) -> None:
    """Write the report of a table of answers just written; its index names the rows as `Example.row` does."""
    table = written.loc[[example.row for example in examples]]
    write_report(path, report_of_table(None, title, table, examples), _open)


def report_systems(path: Path, title: str, examples: Sequence[Example], runs: Sequence[SystemRun], found: dict) -> None:
    """Write the report of systems that `evaluation.compare.compare` has compared, as `found`; the most accurate is judged.

    Changes are against the first of the others.
    """
    known = {row["name"]: row for row in found["systems"]}
    judged = max(runs, key=lambda run: known[run.name]["accuracy"] or 0)
    before = next((run.name for run in runs if run is not judged), None)
    sentence = _sentence({"adapter": known[judged.name], "blind": known.get(BLIND), "swapped": None})
    if before and known[judged.name]["accuracy"] is not None:
        pair = next(one for one in found["differences"] if {one["a"], one["b"]} == {judged.name, before})
        clear = "more than noise" if pair["more_than_noise"] else "within noise"
        sentence = f"No system is right more often than {judged.name}, and its lead on {before} is {clear}; {sentence}"
    fields = {"before": before, "notes": list(found["notes"]), "systems": found["systems"]}
    answers = {run.name: run.answers for run in runs}
    report = Report(title, sentence, examples, answers, judged.name, confidences=judged.confidences, **fields)
    write_report(path, report, _open)


def report_of_table(folder: Path | None, title: str, table: pd.DataFrame, examples: Sequence[Example]) -> Report:
    """Make the report of one table of answers; `folder` is that of the run that wrote it, if one did."""
    names = {column: ROWS[key] for column, key in COLUMNS.items() if column in table}
    if names.keys() == {"generated_answer"}:
        names["generated_answer"] = "answer"
    answers = {name: table[column].tolist() for column, name in names.items()}
    certain = {name: read_shares(table, column) for name, column in CERTAIN.items()}
    return make_report(
        title, examples, answers, names["generated_answer"], captions=bool(folder) and is_of_captions(folder),
        before=names.get("base_answer"), swapped=names.get("swapped_answer"), blind=names.get("blind_answer"),
        history=_read(folder / "history.json", []) if folder else [], left_out=read_left_out(table), **certain,
    )  # fmt: skip


def is_of_captions(folder: Path) -> bool:
    """Tell whether the run in a folder learnt captions."""
    return _read(folder / MANIFEST, {}).get("task") == "caption"


def _read(path: Path, empty):
    """Read what a run has left; `empty` where it was an earlier version's, or the file is gone or damaged."""
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, type(empty)):
            return value
    return empty


def read_left_out(table: pd.DataFrame) -> list[bool]:
    """Say of each row whether its answer was left out; nothing where the table has no column `status`."""
    return (table["status"] == UNSURE).tolist() if "status" in table else []


def read_shares(table: pd.DataFrame, column: str) -> list[float | None]:
    """Read a column of numbers from 0 to 1, None where a cell is empty; nothing where there is no such column.

    Raises `InputError` for any other cell.
    """
    if column not in table:
        return []
    cells = table[column].str.strip()
    numbers = pd.to_numeric(cells, errors="coerce")
    wrong = cells[(cells != "") & ~numbers.between(0, 1)]
    if len(wrong):
        raise InputError(
            f"column {column}: {len(wrong)} cells are no number from 0 to 1, the first {shown(wrong.iloc[0])}; mend them, or "
            "rename the column"
        )
    return [None if pd.isna(number) else float(number) for number in numbers]


def _open(example: Example) -> Image.Image | None:
    with suppress(BadImage):
        return open_image(example.image)
    return None
