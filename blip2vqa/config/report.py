"""What `blip2vqa report` takes."""

from dataclasses import dataclass
from pathlib import Path

from blip2vqa.config import base
from blip2vqa.config.common import check_ending
from blip2vqa.config.fields import WordArguments, option
from blip2vqa.data.answers import parse_question_types
from blip2vqa.utils.errors import collect_errors


@dataclass
class ReportArguments(WordArguments):
    """Write a page with pictures, questions and answers, right and wrong ones, and the scores."""

    results: list[str] = option(
        [],
        "Folders of runs, or tables of answers by any system. The first is judged. With several, changes are against the "
        "second.",
        nargs="+",
        positional=True,
        group="Answers",
    )
    csv_path: str | None = option(
        None, "Table of the questions and their answers. Default: the first of the results itself.", base.TABLE_ALIAS
    )
    image_dir: str | None = option(
        None, "Folder of the images. Default: that of the run. Rows whose images are gone are shown without.",
        base.IMAGES_ALIAS,
    )  # fmt: skip
    annotations_path: str | None = base.ANNOTATIONS
    image_column: str | None = base.IMAGE_COLUMN
    question_column: str | None = base.QUESTION_COLUMN
    answer_column: str | None = base.ANSWER_COLUMN
    prediction_column: str | None = option(None, "Column of the predictions. Default: the one with a usual name.")
    cell_separator: str | None = base.CELL_SEPARATOR
    question_types: str | None = base.QUESTION_TYPES
    question_type_column: str | None = base.QUESTION_TYPE_COLUMN
    output_path: str | None = option(
        None,
        "The page. Default: report.html in the run's folder, or RESULTS.report.html beside the table.",
        group="Output",
    )

    def check(self) -> list[str]:
        problems = super().check()
        for path in self.results:
            if not Path(path).exists():
                problems.append(f"results {path}: no such file or folder")
            elif Path(path).is_dir() and not (Path(path) / "predictions.csv").exists():
                problems.append(
                    f"results {path}: holds no predictions.csv; name the folder of a finished run, or a table"
                )
        if self.prediction_column and any(Path(path).is_dir() for path in self.results):
            problems.append("--prediction_column: is for tables of answers; a run's folder has its own")
        if self.output_path:
            problems += check_ending("output_path", self.output_path, (".html",))
        collect_errors(problems, parse_question_types, self.question_types)
        return problems
