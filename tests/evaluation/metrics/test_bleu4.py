"""BLEU-4 against values worked out by hand."""

import math

import pytest

from helpers.scored_rows import caption_scores


def bleu4(predictions: list[str], references: list[list[str]]) -> float | None:
    return caption_scores("bleu4", predictions, references).value


def test_bleu_by_hand():
    assert bleu4(["a b c d e"], [["a b c d f"]]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu4(["a b c d"], [["A, b, c, d e f."]]) == pytest.approx(math.exp(1 - 6 / 4))
    # No penalty where a reference is as long; counts are clipped at the most of any one reference.
    assert bleu4(["a b c d"], [["a b c d e f", "x b c d"]]) == pytest.approx(1)
    # Over all rows together: 4-grams 1 + 0 of 2, 3-grams 2 + 0 of 4, and so on
    assert bleu4(["a b c d", "w x y z"], [["a b c d"], ["q r s t"]]) == pytest.approx(0.5)


def test_bleu_without_a_run_of_four_words_is_near_zero():
    assert bleu4(["a dog"], [["a dog"]]) < 0.04
    assert bleu4(["a b c x"], [["a b c d"]]) < 0.01


def test_perfect_captions_score_one():
    captions = ["a man rides a horse", "two small dogs play ball", "the old red car stops"]
    assert bleu4(captions, [[caption] for caption in captions]) == pytest.approx(1)
    assert bleu4(["a red dog runs"], [["a red dog runs"]]) == pytest.approx(1)


def test_empty_predictions_and_references_without_a_word_score_zero_and_no_rows_give_no_score():
    assert bleu4(["", ""], [["a red dog runs"], ["a cat"]]) == 0
    assert bleu4(["a", "b"], [["..."], ["!"]]) == pytest.approx(0, abs=1e-3)
    assert bleu4([], []) is None
