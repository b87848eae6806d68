"""ANLS on values worked out by hand from its formula, and beside the competition's own script written out plainly."""

import random

import pytest

from blip2vqa.evaluation.metrics.anls import similarity
from helpers.scored_rows import answer_scores


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("coca cola", ["coca cola"], 1),
        ("Coca  Cola\n", ["coca cola"], 1),  # neither capitals nor blanks count
        ("coca-cola", ["coca cola"], 1 - 1 / 9),
        ("coca", ["coca cola"], 0),  # five letters of nine are missing: below one half, so another answer
        ("cola", ["coca cola", "Cola!"], 1 - 1 / 5),  # the nearest of the annotators' answers counts
        ("ab", ["ax"], 0.5),  # exactly one half counts
        ("abc", ["axy"], 0),
        ("two", ["2"], 0),  # not normalised as exact match does
        ("", ["a"], 0),
        (" \n", [" "], 0),  # an empty prediction is wrong whatever the answer
    ],
)
def test_by_hand(prediction, answers, expected):
    assert similarity(prediction, answers) == pytest.approx(expected)


def test_it_is_the_mean_over_the_rows():
    result = answer_scores("anls", ["stop", "stoq", "no"], [["STOP"], ["stop", "halt"], ["yes"]])
    assert result.scores == pytest.approx([1, 0.75, 0])
    assert result.value == pytest.approx(1.75 / 3)
    assert answer_scores("anls", [], []).value is None


def competition_score(prediction: str, answers: list[str]) -> float:
    """As the script of https://rrc.cvc.uab.es/?ch=11 does it, with a plain table of edit distances."""
    values = []
    for answer in answers:
        first, second = (" ".join(text.strip().lower().split()) for text in (answer, prediction))
        table = list(range(len(second) + 1))
        for row, letter in enumerate(first, start=1):
            above, table[0] = table[0], row
            for column, other in enumerate(second, start=1):
                above, table[column] = (
                    table[column],
                    min(above + (letter != other), table[column] + 1, table[column - 1] + 1),
                )
        values.append(table[-1] / max(len(first), len(second)))
    score = 1 - min(values)
    return score if score >= 0.5 else 0


def test_it_equals_the_competitions_script_on_drawn_texts():
    draw = random.Random(0)
    for _ in range(300):
        texts = ["".join(draw.choices("aAbc ", k=draw.randint(1, 8))).strip() or "a" for _ in range(4)]
        assert similarity(texts[0], texts[1:]) == pytest.approx(competition_score(texts[0], texts[1:]))
