"""Defines the two tasks of a run, questions and captions: how it is scored, and what is predicted without the image."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from blip2vqa.evaluation.blind import BlindBaseline, BlindCaption
from blip2vqa.evaluation.metric import Needs
from blip2vqa.evaluation.metrics import metrics_of
from blip2vqa.evaluation.scores import score
from blip2vqa.utils.errors import InputError

LOSS = "loss"


@dataclass(frozen=True)
class Task:
    """A kind of text that a model writes about a picture."""

    name: str
    unit: str
    """What is counted."""
    score: Callable[..., dict]
    """`score(examples, texts, bertscore=None)`"""
    blind: type
    """Made of training examples; `predict(examples)`, without the image."""
    max_new_tokens: int

    @property
    def main(self) -> str:
        """Return the name of the metric that chooses the best epoch unless another is asked for."""
        return metrics_of(self.name)[0].name

    def find_best_metric(self, asked: str) -> str:
        """Check the name given as `--metric_for_best_model`: "loss" or a metric of this task that says what is better.

        Metrics that need a text encoder are no choice: answers are scored without one during training.

        "accuracy", the option's default, stands for the task's main metric. Raises `InputError` for any other name.
        """
        name = asked.removeprefix("eval_")  # which Trainer puts in front of the names itself
        known = [
            metric.name
            for metric in metrics_of(self.name)
            if metric.higher_is_better is not None and metric.needs is not Needs.ENCODER
        ]
        if name == "accuracy":
            return self.main
        if name not in (*known, LOSS):
            choices = ", ".join([*known, LOSS])
            raise InputError(
                f"--metric_for_best_model {asked}: is no metric of --task {self.name}; choose from {choices}"
            )
        return name


VQA = Task("vqa", "question", score, BlindBaseline, 10)
CAPTION = Task("caption", "caption", partial(score, task="caption"), BlindCaption, 50)
TASKS = {task.name: task for task in (VQA, CAPTION)}
