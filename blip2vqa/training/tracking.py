"""Sends to trackers what Trainer does not: the scores beside the adapter's, and validation rows with their pictures."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from transformers import TrainerCallback
from transformers.integrations import (
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
    get_reporting_integration_callbacks,
)

from blip2vqa.data.examples import Example
from blip2vqa.data.images import open_image
from blip2vqa.evaluation.metrics import METRICS
from blip2vqa.evaluation.scores import rows_to_score
from blip2vqa.evaluation.tasks import Task
from blip2vqa.inference.generation import Answer
from blip2vqa.reporting.pages.page import shrink
from blip2vqa.training.data import RunData
from blip2vqa.training.outputs import blind_texts
from blip2vqa.training.trainer import VQATrainer

SHOWN_ROWS = 50
"""Validation rows that a tracker is shown at each evaluation, at most."""
SIDE = 128  # of a picture, in pixels
FRAME = 4  # around a picture on a sheet, in pixels
ACROSS = 10  # pictures beside each other on a sheet
COLORS = {True: "green", False: "red", None: "gray"}
"""Of a picture's frame: the answer is right, wrong, or neither, as captions are."""
TABLE, SHEET = "eval/rows", "eval/pictures"


@dataclass(frozen=True)
class ShownRow:
    """A validation row with what was answered at one evaluation."""

    number: int
    """As in `Example.row`."""
    digest: str
    picture: Image.Image
    question: str
    truth: str
    answer: str
    right: bool | None

    def cells(self) -> dict[str, str | int]:
        """Name what stands beside the picture; captions have no question, and are not right or wrong."""
        cells = {"row": self.number, "question": self.question, "truth": self.truth, "answer": self.answer}
        if not self.question:
            del cells["question"]
        return cells if self.right is None else cells | {"right": "yes" if self.right else "no"}


class Tracking(TrainerCallback):
    """Logs base, blind and swapped scores and sampled rows; it stands before the trackers, as some end with the training."""

    def __init__(self, trainer: VQATrainer, trackers: list[TrainerCallback], data: RunData, base: list[Answer]):
        """`base`: the base's answers to the validation questions."""
        self.trainer, self.trackers, self.started = trainer, trackers, False
        self.task: Task = trainer.task
        known = {"base": [answer.text for answer in base], "blind": blind_texts(self.task, data)}
        self.baselines = {name: self._score(data.val, texts) for name, texts in known.items()}
        sampled = random.Random(trainer.args.seed).sample(range(len(data.val)), min(SHOWN_ROWS, len(data.val)))
        self.sampled = sorted(sampled)
        self.tables = [WRITERS[type(tracker)](tracker) for tracker in trackers if type(tracker) in WRITERS]
        # Opened once, and small: they are logged at every evaluation.
        shown = {data.val[index].digest: data.val[index].image for index in self.sampled if self.tables}
        self.pictures = {digest: shrink(open_image(source), SIDE) for digest, source in shown.items()}

    def on_epoch_begin(self, args, state, control, **kwargs):
        if not self.started:  # the trackers are, since the training has begun
            self.started = True
            self._log(self.baselines, args, state, control, **kwargs)

    def on_evaluate(self, args, state, control, **kwargs):
        self._log(self.baselines, args, state, control, **kwargs)  # at each: lines beside the adapter's curve
        answers = self.trainer.answers_by_step[state.global_step]
        if state.is_world_process_zero and self.tables:
            rows = [self._row(self.trainer.eval_dataset.examples[index], answers[index].text) for index in self.sampled]
            for write in self.tables:
                write(rows, state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        final = self.trainer.final_answers()  # all processes of a launch answer
        scores = {} if self.started else dict(self.baselines)  # a resumed run may have no step left to take
        if "swapped" in final:
            scores["swapped"] = self._score(
                self.trainer.eval_dataset.examples, [answer.text for answer in final["swapped"]]
            )
        self._log(scores, args, state, control, **kwargs)

    def _score(self, examples: list[Example], texts: list[str]) -> float | None:
        return self.task.score(examples, texts)[self.task.main]

    def _log(self, scores: dict[str, float | None], args, state, control, **kwargs) -> None:
        """Send scores as if Trainer had logged them, but to the trackers alone: they are no part of its history."""
        logs = {f"eval_{name}_{self.task.main}": score for name, score in scores.items() if score is not None}
        for tracker in self.trackers if logs else ():
            tracker.on_log(args, state, control, logs=dict(logs), model=kwargs.get("model"))

    def _row(self, example: Example, text: str) -> ShownRow:
        metric, right = METRICS[self.task.main], None
        if metric.is_share:
            right = metric.compute(rows_to_score([example], [text], self.task.name)).value == 1
        truth = "; ".join(dict.fromkeys(example.answers))
        picture = self.pictures[example.digest]
        return ShownRow(example.row, example.digest, picture, example.question, truth, text, right)


def track(trainer: VQATrainer, data: RunData, base: list[Answer]) -> None:
    """Add `Tracking` to a trainer that reports to a tracker."""
    kinds = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    callbacks = trainer.callback_handler.callbacks
    if trackers := [callback for callback in callbacks if type(callback) in kinds]:
        callbacks.insert(0, Tracking(trainer, trackers, data, base))


Write = Callable[[list[ShownRow], int], None]
"""`write(rows, step)`"""


def write_to_tensorboard(tracker: TensorBoardCallback) -> Write:
    """Make what writes the rows as a text table, and their pictures as one sheet with the rows' numbers."""

    def write(rows: list[ShownRow], step: int) -> None:
        cells = [row.cells() for row in rows]
        lines = [
            [*cells[0]],
            ["---"] * len(cells[0]),
            *([_as_markdown(text) for text in row.values()] for row in cells),
        ]
        tracker.tb_writer.add_text(TABLE, "\n".join(f"| {' | '.join(line)} |" for line in lines), step)
        tracker.tb_writer.add_image(SHEET, np.asarray(draw_sheet(rows)), step, dataformats="HWC")
        tracker.tb_writer.flush()

    return write


def write_to_table(tracker: TrackioCallback | WandbCallback) -> Write:
    """Make what writes the rows as one table with pictures, by trackio or wandb, which have the same functions."""
    if isinstance(tracker, TrackioCallback):
        import trackio as library
    else:
        import wandb as library
    images: dict[str, object] = {}  # by digest: each picture is stored once

    def write(rows: list[ShownRow], step: int) -> None:
        for row in rows:
            images.setdefault(row.digest, library.Image(row.picture))
        columns = ["picture", *rows[0].cells()]
        cells = [[images[row.digest], *row.cells().values()] for row in rows]
        # Without a step of its own: both count what they are sent, and Trainer, too, names the step this way.
        library.log({TABLE: library.Table(columns=columns, data=cells), "train/global_step": step})

    return write


WRITERS: dict[type, Callable[[TrainerCallback], Write]] = {
    TensorBoardCallback: write_to_tensorboard,
    TrackioCallback: write_to_table,
    WandbCallback: write_to_table,
}
"""The trackers that show tables or pictures; all others get the scores alone."""


def draw_sheet(rows: list[ShownRow]) -> Image.Image:
    """Draw the pictures of rows beside and below each other, each with its row's number and a frame in one of `COLORS`."""
    cell = SIDE + 2 * FRAME
    sheet = Image.new("RGB", (cell * min(ACROSS, len(rows)), cell * -(-len(rows) // ACROSS)), "white")
    for place, row in enumerate(rows):
        tile = Image.new("RGB", (SIDE, SIDE), "white")
        tile.paste(row.picture, ((SIDE - row.picture.width) // 2, (SIDE - row.picture.height) // 2))
        draw = ImageDraw.Draw(tile)
        draw.rectangle(draw.textbbox((2, 2), str(row.number)), fill="white")
        draw.text((2, 2), str(row.number), fill="black")
        sheet.paste(
            ImageOps.expand(tile, FRAME, COLORS[row.right]), (cell * (place % ACROSS), cell * (place // ACROSS))
        )
    return sheet


def _as_markdown(text: str | int) -> str:
    """Write a text so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_|])", r"\\\1", escape(" ".join(str(text).split()), quote=False))
