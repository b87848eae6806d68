"""What a run learns, questions or captions: how it is scored, and what a model scores that sees no image."""

from collections.abc import Callable
from dataclasses import dataclass

from blip2vqa.evaluation.caption_metrics import BlindCaption, score_captions
from blip2vqa.evaluation.scores import BlindBaseline, score
from blip2vqa.utils.errors import InputError

LOSS = "loss"


@dataclass(frozen=True)
class Task:
    """A kind of text that a model writes about a picture."""

    name: str
    main: str
    """The score, a key of what `score` returns, that chooses the best epoch."""
    unit: str
    """What is counted."""
    score: Callable[..., dict]
    """`score(examples, texts, bertscore=None)`"""
    blind: type
    """Made of training examples; `predict(examples)`, without the image."""
    max_new_tokens: int

    def find_best_metric(self, asked: str) -> str:
        """Check the name given as `--metric_for_best_model`: "loss", or the main score of this task.

        "accuracy", the option's default, stands for the task's main score. Raises `InputError` for any other name.
        """
        name = asked.removeprefix("eval_")  # which Trainer puts in front of the names itself
        if name == "accuracy":
            return self.main
        if name not in (self.main, LOSS):
            raise InputError(
                f"--metric_for_best_model {asked}: is no metric of --task {self.name}; choose from {self.main}, {LOSS}"
            )
        return name


VQA = Task("vqa", "accuracy", "question", score, BlindBaseline, 10)
CAPTION = Task("caption", "cider", "caption", score_captions, BlindCaption, 50)
TASKS = {task.name: task for task in (VQA, CAPTION)}
