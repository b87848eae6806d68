"""The mean length of captions."""

from blip2vqa.evaluation.metrics import METRICS
from helpers.scored_rows import caption_scores


def test_words_are_counted_without_punctuation():
    assert caption_scores("mean_words", ["A man rides a horse.", ""], [["x"], ["y"]]).value == 2.5
    assert caption_scores("mean_words", [], []).value is None


def test_it_says_nothing_of_what_is_better():
    assert METRICS["mean_words"].higher_is_better is None and METRICS["mean_words"].show(2.55) == "2.5"
