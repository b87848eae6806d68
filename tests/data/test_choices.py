"""Multiple choice: which answers a row allows, and which is right."""

import pytest

from blip2vqa.data.choices import are_chosen, read_choices
from blip2vqa.data.examples import Example

CHOICES = "['car', 'bus', 'car', '']"


def examples(*numbers: str, choices: str = CHOICES) -> list[Example]:
    extras = [{"options": choices, "correct_choice_idx": number} for number in numbers]
    return [Example(row, None, "a", "", "q?", ("tram",), "other", extra) for row, extra in enumerate(extras)]


def test_the_right_one_is_the_answer():
    found, choices, reasons = read_choices(examples("0.0", "1", " 2 ", "1.0"))
    assert [example.answers for example in found] == [("car",), ("bus",), ("car",), ("bus",)]
    assert choices == dict.fromkeys(range(4), ("car", "bus")) and not reasons


def test_without_numbers_the_answers_stay():
    found, choices, reasons = read_choices(examples("", ""))
    assert [example.answers for example in found] == [("tram",)] * 2 and len(choices) == 2 and not reasons


@pytest.mark.parametrize("number", ["", "4", "-1", "0.5", "b", "nan", "inf", "3"])
def test_other_numbers_are_no_mixture_of_scores(number):
    _, _, ((row, reason),) = read_choices(examples("0", number))
    assert row == 1 and "correct_choice_idx" in reason


def test_predictions_that_are_choices():
    rows, choices, _ = read_choices(examples("0", "1"))
    assert are_chosen(["Car.", ""], rows, choices)
    assert not are_chosen(["car", "tram"], rows, choices)
    assert not are_chosen(["", ""], rows, choices)
    assert not are_chosen(["car"], *read_choices(examples(""))[:2])
