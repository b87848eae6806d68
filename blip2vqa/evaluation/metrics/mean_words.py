"""The mean number of words in a caption: no measure of its worth, but of its length."""

from collections.abc import Sequence

from blip2vqa.evaluation.metric import Metric, Needs, Result, Row
from blip2vqa.evaluation.words import tokenize


def compute(rows: Sequence[Row]) -> Result:
    """Count the words of each prediction."""
    return Result.mean_of([len(tokenize(row.text)) for row in rows])


METRIC = Metric("mean_words", "words", 60, Needs.CAPTIONS, compute, digits=1, higher_is_better=None)
