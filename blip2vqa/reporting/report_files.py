"""Makes reports of files: of runs' folders, and of tables of answers by any system."""

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from blip2vqa.config.base import column_names
from blip2vqa.config.report import ReportArguments
from blip2vqa.data.annotators import parse_answers
from blip2vqa.data.answers import parse_question_types
from blip2vqa.data.columns import find_column
from blip2vqa.data.examples import Example, load_questions, of_types
from blip2vqa.data.finding import ImageIndex
from blip2vqa.data.images import BadImage, ImageSource, open_image
from blip2vqa.data.predictions import match_predictions
from blip2vqa.data.raw_table import RawTable
from blip2vqa.data.tables import read_raw
from blip2vqa.reporting.pages.report import write_report
from blip2vqa.reporting.reports import (
    CERTAIN,
    is_of_captions,
    make_report,
    read_left_out,
    read_shares,
    report_of_table,
    report_path,
)
from blip2vqa.utils.errors import InputError, file_error

PREDICTIONS = "predictions.csv"
logger = logging.getLogger(__name__)


def report_files(args: ReportArguments) -> Path:
    """Write the report of runs' folders, or of tables of answers, and return its place. Raises `InputError`."""
    folders = [Path(path) if Path(path).is_dir() else None for path in args.results]
    paths = [folder / PREDICTIONS if folder else Path(path) for folder, path in zip(folders, args.results, strict=True)]
    table_path, columns = args.csv_path or str(paths[0]), column_names(args, args.prediction_column)
    raw = read_raw(table_path)
    if not args.csv_path:
        _check_has_both(table_path, list(raw.frame), args.prediction_column)
    examples = _read_examples(args, table_path, folders[0] if not args.csv_path else None)
    tables = [match_predictions(path, examples, columns) for path in paths]
    if "status" in tables[0]:  # rows that were never asked
        asked = (~tables[0]["status"].str.startswith("bad ")).tolist()
        examples = [example for example, kept in zip(examples, asked, strict=True) if kept]
        tables = [table[asked] for table in tables]
    if not any(example.answer for example in examples):
        remedy = "" if args.csv_path else "; name the table with the right ones by --csv_path"
        raise InputError(f"{table_path}: has no row with an answer{remedy}")
    run = next(filter(None, folders), None)
    find = _finder(args.image_dir or (run and _image_dir(run)), raw)
    examples = [replace(one, digest=digest) for one, digest in zip(examples, _digests(examples, find), strict=True)]
    try:
        if len(paths) == 1:
            report = report_of_table(folders[0], args.results[0], tables[0], examples)
        else:
            names = _names(args.results)
            answers = {name: table["generated_answer"].tolist() for name, table in zip(names, tables, strict=True)}
            certain = {name: read_shares(tables[0], column) for name, column in CERTAIN.items()}
            certain["left_out"] = read_left_out(tables[0])
            report = make_report(" and ".join(names), examples, answers, names[0], before=names[1], **certain)
    except InputError as error:
        raise InputError(*(f"{paths[0]}: {problem}" for problem in error.problems)) from error
    path = Path(args.output_path) if args.output_path else report_path(args.results[0])
    missing = len({one.image_name for one in examples if not one.digest})
    if missing:
        of = len({one.image_name for one in examples})
        logger.warning("%s of %s pictures were not found: name their folder by --image_dir", f"{missing:,}", f"{of:,}")

    def open_picture(example: Example) -> Image.Image | None:
        with suppress(BadImage):
            return open_image(find(example))
        return None

    try:
        write_report(path, report, open_picture)
    except OSError as error:
        raise file_error(f"--output_path {path}: cannot be written", error) from error
    return path


def _check_has_both(path: str, known: list[str], prediction: str | None) -> None:
    """Raise `InputError` for a file that holds either predictions or right answers, and is to be its own table."""
    if find_column(path, known, "prediction", prediction) is None:
        raise InputError(f"{path}: has no predictions beside right answers; name the table of questions by --csv_path")


def _read_examples(args: ReportArguments, path: str, run: Path | None) -> list[Example]:
    """Read the questions; `run`: the folder of the run whose predictions are the table."""
    if run and is_of_captions(run):
        frame = read_raw(path).frame
        rows = zip(frame.index.tolist(), frame["image_name"], frame["answer"], strict=True)
        return [Example(row, None, name, "", "", parse_answers(cell), "caption", {}) for row, name, cell in rows]
    columns = column_names(args, args.prediction_column)
    options = {"question_type_column": args.question_type_column, "columns": columns, "require_answers": False}
    examples = load_questions(path, args.annotations_path, **options)
    types = parse_question_types(args.question_types)
    return of_types(examples, types, path) if types else examples


def _names(results: list[str]) -> list[str]:
    """Name each of several files of predictions: by its own name, else by its place in the list, too."""
    stems = [Path(path).name if Path(path).is_dir() else Path(path).stem for path in results]
    return [stem if stems.count(stem) == 1 else f"{stem} ({number})" for number, stem in enumerate(stems, start=1)]


def _image_dir(run: Path) -> str | None:
    """Read the folder of a run's pictures, which stands in its run.json absolute, or relative to it."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        given = Path(json.loads((run / "run.json").read_text(encoding="utf-8"))["image_dir"])
        return str(next((place for place in (given, run / given) if place.is_dir()), given))
    return None


def _finder(image_dir: str | None, raw: RawTable) -> Callable[[Example], ImageSource]:
    """Return what finds the picture of an example, in the folder or in the table; it raises BadImage where there is none."""
    if image_dir is not None and Path(image_dir).is_dir():
        index = ImageIndex(image_dir)
        return lambda example: ImageSource(example.image_name, path=index.find(example.image_name.strip()))
    position = {row: place for place, row in enumerate(raw.frame.index.tolist())}

    def find(example: Example) -> ImageSource:
        if raw.images is None:
            raise BadImage("no folder of pictures is named")
        return ImageSource(example.image_name, dataset=raw.images, index=position[example.row])

    return find


def _digests(examples: list[Example], find: Callable[[Example], ImageSource]) -> list[str]:
    """Compute the SHA-256 of each example's picture, by which the same picture under two names is one; "" where it is gone."""
    known: dict[str, str] = {}
    found = []
    for example in examples:
        key = example.image_name or str(example.row)
        if key not in known:
            known[key] = ""
            with suppress(BadImage):
                known[key] = hashlib.sha256(find(example).read_bytes()).hexdigest()
        found.append(known[key])
    return found
