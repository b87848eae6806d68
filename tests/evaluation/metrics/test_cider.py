"""CIDEr against values worked out by hand."""

import math

import pytest

from helpers.scored_rows import caption_scores


def cider(predictions: list[str], references: list[list[str]]) -> list[float]:
    return caption_scores("cider", predictions, references).scores


def test_cider_by_hand():
    # Two rows, every n-gram of the references in one of them: each weighs log 2 for each time it occurs.
    # Row 1: one and two words agree, three and four there are none: (1 + 1 + 0 + 0) / 4 * 10.
    # Row 2: of two words one agrees, cosine 1/2, and no pair: (1/2 + 0 + 0 + 0) / 4 * 10.
    result = caption_scores("cider", ["A b.", "c e"], [["a b"], ["c d"]])
    assert result.scores == pytest.approx([5, 1.25])
    assert result.value == pytest.approx(3.125)


def test_cider_is_the_mean_over_references_with_a_penalty_for_length():
    references = [["a b c d e", "f g h i j"], ["k"]]
    assert cider(["a b c d e", "x"], references)[0] == pytest.approx(10 / 2)
    # Its length is the number of word pairs: 5 against 3 is 2 too many, exp(-2² / (2 * 6²)). The words not in any
    # reference weigh as much as those in one: cosines 4/√24, 3/√15, 2/√8 and 1/√3.
    cosines = 4 / math.sqrt(24) + 3 / math.sqrt(15) + 2 / math.sqrt(8) + 1 / math.sqrt(3)
    expected = cosines / 4 * 10 * math.exp(-4 / 72)
    assert cider(["a b c d x y", "x"], [["a b c d"], ["k"]])[0] == pytest.approx(expected)


def test_words_of_every_image_count_for_nothing():
    assert cider(["a", "a"], [["a dog"], ["a cat"]]) == [0, 0]
    # One word of one agrees; no pair against one is a penalty of exp(-1² / (2 * 6²)).
    assert cider(["dog", "cat"], [["a dog"], ["a cat"]]) == pytest.approx([2.5 * math.exp(-1 / 72)] * 2)


def test_perfect_captions_and_their_scale():
    captions = ["a man rides a horse", "two small dogs play ball", "the old red car stops"]
    references = [[caption] for caption in captions]
    assert caption_scores("cider", captions, references).value == pytest.approx(10)
    assert cider(captions[1:] + captions[:1], references) == pytest.approx([0, 0, 0], abs=1e-9)


def test_of_a_single_image_cider_is_zero_by_construction():
    assert caption_scores("cider", ["a red dog runs"], [["a red dog runs"]]).value == 0


def test_empty_predictions_score_zero():
    scores = cider(["", " \n", "two birds"], [["a red dog runs"], ["a cat"], ["two birds"]])
    assert scores[:2] == [0, 0] and scores[2] > 0
    assert cider(["...", "x"], [["a dog"], ["..."]]) == [0, 0]


def test_references_without_a_word_are_no_error_and_no_rows_give_no_score():
    assert cider(["a", "b"], [["..."], ["!"]]) == [0, 0]
    assert caption_scores("cider", ["a", "b"], [["..."], ["!"]]).value == 0
    assert caption_scores("cider", [], []).value is None
