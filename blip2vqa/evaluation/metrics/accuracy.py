"""Exact match: the share of answers that equal the table's after the official VQA normalisation of both."""

from collections.abc import Sequence

from blip2vqa.data.answers import normalize_answer
from blip2vqa.evaluation.metric import Metric, Needs, Result, Row


def compute(rows: Sequence[Row]) -> Result:
    """Score each row 0.0 or 1.0. An empty prediction is wrong, even where the answer is nothing but an article."""
    return Result.mean_of(
        [float(not row.is_empty and normalize_answer(row.text) == normalize_answer(row.references[0])) for row in rows]
    )


METRIC = Metric(
    "accuracy",
    "accuracy",
    10,
    Needs.ANSWERS,
    compute,
    is_share=True,
    card_title="Exact match",
    by_question_type=True,
    interval="interval",
)
