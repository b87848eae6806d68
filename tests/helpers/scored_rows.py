"""Rows for the metrics: predictions beside what they are compared with."""

from blip2vqa.data.examples import Example
from blip2vqa.evaluation.metric import Result, Row
from blip2vqa.evaluation.metrics import METRICS


def question_rows(predictions: list[str], answers: list[list[str]]) -> list[Row]:
    """One question a row; `answers` are those of its annotators."""
    examples = [
        Example(place, None, "a.jpg", "", "What?", tuple(given), "what", {}) for place, given in enumerate(answers)
    ]
    pairs = zip(predictions, examples, strict=True)
    return [Row(text, (example.answer,), example) for text, example in pairs]


def caption_rows(predictions: list[str], captions: list[list[str]]) -> list[Row]:
    """One picture a row, with all its captions."""
    examples = [
        Example(place, None, "a.jpg", "", "", tuple(given), "caption", {}) for place, given in enumerate(captions)
    ]
    return [Row(text, example.answers, example) for text, example in zip(predictions, examples, strict=True)]


def answer_scores(metric: str, predictions: list[str], answers: list[list[str]]) -> Result:
    """What a metric of questions says."""
    return METRICS[metric].compute(question_rows(predictions, answers))


def caption_scores(metric: str, predictions: list[str], captions: list[list[str]]) -> Result:
    """What a metric of captions says."""
    return METRICS[metric].compute(caption_rows(predictions, captions))
