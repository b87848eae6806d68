"""Normalisation as the official VQA evaluator does it, and question types by rule."""

import pytest

from blip2vqa.data.answers import (
    CONTRACTIONS,
    QUESTION_TYPES,
    normalize_answer,
    process_digit_article,
    process_punctuation,
    question_type,
)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("Red.", "red"),
        (" The\nred\tcar ", "red car"),
        ("two", "2"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("U.S.A.", "usa"),
        ("t-shirt", "t shirt"),
        ("red , blue", "red blue"),
        ("black/white", "black white"),
        ("yes!", "yes"),
        ("can't", "can't"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("a", ""),
        ("", ""),
    ],
)
def test_normalization_is_the_official_one(answer, normal):
    assert normalize_answer(answer) == normal


def test_punctuation_rules():
    assert process_punctuation("a-b") == "a b"
    assert process_punctuation("a- b-c") == "a bc"  # one mark beside a space drops them all
    assert process_punctuation("1,2;3") == "123"  # and so does a number with a comma
    assert process_punctuation("it's: 5%") == "it's: 5%"  # not among the evaluator's marks
    assert process_punctuation("." * 40) == "." * 8  # its count of 32, meant as a flag


def test_digits_and_articles_leave_punctuation_alone():
    assert process_digit_article("The  TEN-foot an one") == "ten-foot 1"


def test_contractions_are_the_evaluators():
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["ow's'at"] == CONTRACTIONS["'ows'at"] == "'ow's'at"
    assert "lets" not in CONTRACTIONS and "hell" not in CONTRACTIONS


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Is it red?", "yes/no"),
        ("  isn't this a cat", "yes/no"),
        ("Has the man a hat?", "yes/no"),
        ("Is the color uniform", "yes/no"),
        ("Is it a cat or not?", "yes/no"),
        ("Is it red or blue?", "other"),
        ("Is the shape a circle or a square?", "shape"),
        ("Island or coast?", "other"),
        ("How many colors are there?", "count"),
        ("What is the number of legs", "count"),
        ("What color is the shape?", "color"),
        ("Which COLOUR is it", "color"),
        ("what is the blue shape?", "shape"),
        ("What is it made of?", "material"),
        ("What is the apparent texture of the cushion", "material"),
        ("What is this?", "what"),
        ("On which side", "what"),
        ("Where is the dog?", "other"),
        ("", "other"),
    ],
)
def test_question_type(question, kind):
    assert question_type(question) == kind
    assert kind in QUESTION_TYPES
