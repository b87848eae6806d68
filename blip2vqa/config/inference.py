"""What inference.py takes."""

from dataclasses import dataclass
from pathlib import Path

from blip2vqa.config import base
from blip2vqa.config.common import check_ending, check_prompt
from blip2vqa.config.decoding import MAX_COUNT
from blip2vqa.config.fields import option
from blip2vqa.data.answers import parse_question_types
from blip2vqa.utils.errors import collect_errors

TABLES = (".csv", ".jsonl", ".json")
"""Endings of the tables that are written."""


@dataclass
class InferenceArguments(base.ServedBaseArguments):
    """What to answer and where to write it."""

    lora_model_path: list[str] | None = option(
        None,
        "Adapter: folder, name in the store or Hub id. Several: TYPE=ADAPTER for types of questions, default=ADAPTER for the "
        "others. None: the base answers alone.",
        base.ADAPTER_ALIAS,
        nargs="+",
        group="Adapter",
    )
    lora_revision: str | None = option(None, "Branch, tag or commit of the adapter on the Hub.")
    csv_path: str | None = option(
        None,
        "Table of questions: CSV, JSONL, VQA's JSON, `datasets` folder or Hub id.",
        base.TABLE_ALIAS,
        group="Questions",
    )
    image_dir: str | None = base.IMAGE_DIR
    annotations_path: str | None = base.ANNOTATIONS
    image_column: str | None = base.IMAGE_COLUMN
    question_column: str | None = base.QUESTION_COLUMN
    answer_column: str | None = base.ANSWER_COLUMN
    prediction_column: str | None = option(
        None, "Column of the predictions, with --score. Default: the one with a usual name."
    )
    cell_separator: str | None = base.CELL_SEPARATOR
    question_types: str | None = base.QUESTION_TYPES
    question_type_column: str | None = base.QUESTION_TYPE_COLUMN
    on_bad_image: str = option(
        "error", "An unusable image: stop (error) or say so in its row (skip).", choices=["error", "skip"]
    )
    on_bad_row: str = base.ON_BAD_ROW
    prompt: str | None = option(
        None, "Prompt with {question} in it. Default: the adapter's own.", group="Answers and scores"
    )
    batch_size: int = option(
        1, "Questions answered at once. 16 or more is several times faster where there is memory.", at_least=1
    )
    answers: str | None = option(
        None,
        "Answers allowed: a text file, one a line, or choices. Each question gets the likeliest that five beams find, ranked. "
        "choices takes those in the row's own column choices.",
    )
    min_probability: float = option(
        0.0,
        "Leave out answers that are right with a smaller probability. It is the adapter's calibrated one, in the column "
        "probability_right; such rows have the status unsure.",
        at_least=0,
        at_most=1,
    )
    num_beams: int | None = option(
        None, "Beams; 1 is greedy decoding. Default: the adapter's own, else 1.", at_least=1, at_most=MAX_COUNT
    )
    max_new_tokens: int | None = option(
        None, "Longest answer in tokens. Default: the adapter's own, else 10.", at_least=1, at_most=MAX_COUNT
    )
    bertscore_model: str = option("auto", "BERTScore's encoder: auto, minilm, none, Hub id or folder.")
    score: str | None = option(
        None,
        "Predictions to score: a table or the official JSON; no model is loaded. A table has a column generated_answer, "
        "prediction or the like.",
    )
    systems: str | None = option(
        None,
        "JSON or YAML list of systems to compare. Each has name, base_model_id, lora_model_path, quantization, prompt.",
    )
    output_path: str = option(
        "results.csv",
        "Table: the input's columns, answers, confidence, status. It ends with .csv or .jsonl; one that ends with .json holds "
        "the official results of VQA.",
        group="Output",
    )
    overwrite: bool = option(False, "Start anew even if the output exists, whole or in part.")

    def missing(self) -> list[str]:
        return [] if self.csv_path else ["csv_path"]

    def check(self) -> list[str]:
        problems = super().check()
        if not self.csv_path:
            problems.append("--csv_path: missing; name the table with the questions")
        if self.min_probability and (self.score or self.systems):
            problems.append("--min_probability: does not go with --score or --systems, which answer every row")
        if self.prediction_column and not self.score:
            problems.append("--prediction_column: goes with --score alone")
        problems += check_prompt(self.prompt, of_questions=True)
        if not self.score:
            problems += check_ending("output_path", self.output_path, (".csv",) if self.systems else TABLES)
        collect_errors(problems, parse_question_types, self.question_types)
        inputs = [Path(path).resolve() for path in (self.csv_path, self.annotations_path) if path]
        if not self.score and Path(self.output_path).resolve() in inputs:
            problems.append(f"--output_path {self.output_path}: is the table of questions itself; name another file")
        return problems
