"""Scores of predictions that are there, by any system; no model and no image is loaded, nor their code."""

from pathlib import Path

from blip2vqa.config.base import column_names
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.data.answers import parse_question_types
from blip2vqa.data.bad_rows import leave_out
from blip2vqa.data.choices import are_chosen, read_choices
from blip2vqa.data.examples import load_questions, of_types
from blip2vqa.data.predictions import read_predictions
from blip2vqa.evaluation.scores import score
from blip2vqa.utils.console import say
from blip2vqa.utils.errors import collect_errors, raise_all
from blip2vqa.utils.files import write_json_atomic


def score_table(args: InferenceArguments) -> dict:
    """Score the predictions of `args.score` against the answers of the table, and write the scores beside them."""
    raise_all(args.check())
    columns = column_names(args, args.prediction_column)
    options = {"question_type_column": args.question_type_column, "columns": columns, "on_bad_row": args.on_bad_row}
    bad_rows = Path(args.score).with_suffix(".bad_rows.csv")
    examples = load_questions(args.csv_path, args.annotations_path, bad_rows_path=bad_rows, **options)
    predictions = read_predictions(args.score, examples, columns)
    of_choice, choices, reasons = collect_errors([], read_choices, examples) or ([], {}, [])
    said = dict(zip((example.row for example in examples), predictions, strict=True))
    if are_chosen(predictions, examples, choices):
        say("the predictions are among each row's choices: scored against the right one, as --answers choices does")
        examples, _, problems = leave_out(args.csv_path, of_choice, reasons, args.on_bad_row, bad_rows)
        raise_all(problems)
    types = parse_question_types(args.question_types)
    examples = of_types(examples, types, args.csv_path) if types else examples
    scorer = None
    if args.bertscore_model != "none":
        from blip2vqa.evaluation.bertscore import bertscore_scorer  # which brings in torch

        scorer = bertscore_scorer(args.bertscore_model)
    metrics = {"predictions": score(examples, [said[example.row] for example in examples], bertscore=scorer)}
    write_json_atomic(score_path(args.score), metrics)
    return metrics


def score_path(predictions: str) -> Path:
    """Name the file of scores that stands beside a file of predictions: `PREDICTIONS.csv` → `PREDICTIONS.score.json`."""
    return Path(predictions).with_suffix(".score.json")
