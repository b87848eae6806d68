"""Exact match on rows worked out by hand."""

import pytest

from helpers.scored_rows import answer_scores


def test_exact_match_normalises_both_sides_and_an_empty_prediction_is_wrong():
    predictions = ["Red", "the  dog.", "two", "", "  \n", "blue", "a"]
    result = answer_scores("accuracy", predictions, [["red"], ["dog"], ["2"], ["red"], ["a"], ["green"], ["a"]])
    assert result.scores == [1, 1, 1, 0, 0, 0, 1]  # an article alone is normalised away, yet is no empty prediction
    assert result.value == pytest.approx(4 / 7)


def test_of_several_annotators_the_most_common_answer_counts():
    assert answer_scores("accuracy", ["blue", "red"], [["red", "blue", "blue"]] * 2).scores == [1, 0]


def test_no_rows_give_no_score():
    assert answer_scores("accuracy", [], []).value is None
