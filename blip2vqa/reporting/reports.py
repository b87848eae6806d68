"""Makes reports of answers: of a run just finished, or of files of predictions by any system."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
from PIL import Image

from blip2vqa.config.base import column_names
from blip2vqa.config.report import ReportArguments
from blip2vqa.data.answers import parse_question_types
from blip2vqa.data.examples import Example, load_questions, of_types
from blip2vqa.data.finding import ImageIndex
from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.data.predictions import match_predictions
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.evaluation.metrics import main_metric
from blip2vqa.evaluation.scores import score
from blip2vqa.evaluation.verdict import BLIND, ROWS, verdict
from blip2vqa.reporting.pages.report import Report, write_report
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.formatting import percent

COLUMNS = {"base_answer": "base", "generated_answer": "adapter", "swapped_answer": "swapped", "blind_answer": "blind"}
"""Columns of a run's predictions.csv → the keys of `ROWS`."""


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
    **shown,
) -> Report:
    """Score the answers, with intervals, and say in one sentence what they are worth.

    `answers`: of each system by its name, one an example. `blind`: the one that sees no picture, else questions are answered by
    `evaluation.compare`'s; `shown`: further fields of `Report`.
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
    fields = {"before": before, "swapped": swapped, "notes": notes, "systems": systems}
    return Report(title, sentence, examples, dict(answers), judged, **fields, **shown)


def _sentence(scores: Mapping[str, dict | None]) -> str:
    judged = scores["adapter"]
    main = main_metric(judged)
    if main is None:
        return "The table has no answers to compare with."
    value = f"{percent(judged[main.name])} of {judged['n']:,} answers are right"
    if not main.is_share:
        value = f"{main.title} {judged[main.name]:.3f} on {judged['n']:,} pictures"
    return f"{value}: {verdict(scores)}." if scores["blind"] else f"{value}."


def report_run(folder: Path, examples: Sequence[Example]) -> Path:
    """Write the report of a finished run into its folder; `examples` are the validation rows, with their pictures."""
    table = match_predictions(folder / "predictions.csv", examples)
    path = report_path(folder)
    write_report(path, _report_of_table(folder, folder.name, table, examples), _open)
    return path


def report_answers(path: Path, title: str, examples: Sequence[Example], written: pd.DataFrame) -> None:
    """Write the report of a table of answers just written; its index names the rows as `Example.row` does."""
    table = written.loc[[example.row for example in examples]]
    write_report(path, _report_of_table(None, title, table, examples), _open)


def report_systems(
    path: Path, title: str, examples: Sequence[Example], answers: Mapping[str, Sequence[str]], found: dict
) -> None:
    """Write the report of systems that `evaluation.compare.compare` has compared, as `found`; the most accurate is judged.

    Changes are against the first of the others.
    """
    accuracies = {row["name"]: row["accuracy"] or 0 for row in found["systems"]}
    judged = max(answers, key=accuracies.__getitem__)
    before = next((name for name in answers if name != judged), None)
    known = {row["name"]: row for row in found["systems"]}
    sentence = _sentence({"adapter": known[judged], "blind": known.get(BLIND)})
    if before:
        pair = next(one for one in found["differences"] if {one["a"], one["b"]} == {judged, before})
        clear = "more than noise" if pair["more_than_noise"] else "within noise"
        sentence = f"Most often right is {judged}. {sentence} Its lead on {before} is {clear}."
    fields = {"before": before, "notes": found["notes"], "systems": found["systems"]}
    write_report(path, Report(title, sentence, examples, dict(answers), judged, **fields), _open)


def report_files(args: ReportArguments) -> Path:
    """Write the report of runs' folders, or of tables of answers, and return its place. Raises `InputError`."""
    paths = [Path(path) / "predictions.csv" if Path(path).is_dir() else Path(path) for path in args.results]
    columns = column_names(args, args.prediction_column)
    table_path = args.csv_path or str(paths[0])
    options = {"question_type_column": args.question_type_column, "columns": columns}
    examples = load_questions(table_path, args.annotations_path, **options)
    types = parse_question_types(args.question_types)
    examples = of_types(examples, types, table_path) if types else examples
    if not any(example.answer for example in examples):
        raise InputError(f"{table_path}: has no row with an answer, so that there is nothing to report")
    tables = [match_predictions(path, examples, columns) for path in paths]
    if len(paths) == 1:
        folder = paths[0].parent
        report = _report_of_table(
            folder if Path(args.results[0]).is_dir() else None, args.results[0], tables[0], examples
        )
    else:
        names = _names(args.results)
        answers = {name: table["generated_answer"].tolist() for name, table in zip(names, tables, strict=True)}
        certain = {name: _numbers(tables[0], column) for name, column in CERTAIN.items()}
        report = make_report(" and ".join(names), examples, answers, names[0], before=names[1], **certain)
    path = Path(args.output_path) if args.output_path else report_path(args.results[0])
    write_report(path, report, _opener(args.image_dir or _image_dir(paths[0].parent)))
    return path


CERTAIN = {"confidences": "confidence", "probabilities": "probability_right"}


def _report_of_table(folder: Path | None, title: str, table: pd.DataFrame, examples: Sequence[Example]) -> Report:
    """Make the report of one table of answers; `folder` is that of the run that wrote it, if one did."""
    names = {column: ROWS[key] for column, key in COLUMNS.items() if column in table}
    if names.keys() == {"generated_answer"}:
        names["generated_answer"] = "answer"
    answers = {name: table[column].tolist() for column, name in names.items()}
    certain = {name: _numbers(table, column) for name, column in CERTAIN.items()}
    history, captions = [], False
    if folder:
        with suppress(OSError, ValueError):  # of a run of an earlier version, or one whose files were moved
            history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
        with suppress(OSError, ValueError):
            captions = json.loads((folder / "blip2vqa.json").read_text(encoding="utf-8")).get("task") == "caption"
    return make_report(
        title, examples, answers, names["generated_answer"], captions=captions, before=names.get("base_answer"),
        swapped=names.get("swapped_answer"), blind=names.get("blind_answer"), history=history, **certain,
    )  # fmt: skip


def _numbers(table: pd.DataFrame, column: str) -> list[float | None]:
    """Read a column of numbers, None where a cell is empty or holds none; nothing where there is no such column."""
    if column not in table:
        return []
    numbers = pd.to_numeric(table[column], errors="coerce")
    return [None if pd.isna(number) else float(number) for number in numbers]


def _names(results: Sequence[str]) -> list[str]:
    """Name each of several files of predictions: by its own name, else by its place in the list, too."""
    stems = [Path(path).name if Path(path).is_dir() else Path(path).stem for path in results]
    return [stem if stems.count(stem) == 1 else f"{stem} ({number})" for number, stem in enumerate(stems, start=1)]


def _image_dir(folder: Path) -> str | None:
    """Read the folder of pictures of the run that lies in a folder."""
    with suppress(OSError, ValueError, KeyError):
        given = Path(json.loads((folder / "run.json").read_text(encoding="utf-8"))["image_dir"])
        return str(next((place for place in (given, folder / given) if place.is_dir()), given))
    return None


def _open(example: Example) -> Image.Image | None:
    with suppress(BadImage):
        return open_image(example.image)
    return None


def _opener(image_dir: str | None) -> Callable[[Example], Image.Image | None]:
    """Return what opens the picture of an example by its name; None for one that is not there, or no picture."""
    if image_dir is None or not Path(image_dir).is_dir():
        return lambda example: None
    index = ImageIndex(image_dir)

    def find(example: Example) -> Image.Image | None:
        with suppress(BadImage):
            return open_image(ImageSource(example.image_name, path=index.find(example.image_name.strip())))
        return None

    return find
