"""What a run learns, questions or captions: how it is scored, and what a model scores that sees no image."""

from collections.abc import Callable
from dataclasses import dataclass

from blip2vqa.evaluation.caption_metrics import BlindCaption, score_captions
from blip2vqa.evaluation.scores import BlindBaseline, score


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


VQA = Task("vqa", "accuracy", "question", score, BlindBaseline, 10)
CAPTION = Task("caption", "cider", "caption", score_captions, BlindCaption, 50)
TASKS = {task.name: task for task in (VQA, CAPTION)}
