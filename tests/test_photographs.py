"""The parts of benchmarks/photographs.py that decide what is compared."""

import pandas as pd
import pytest

import photographs


def test_every_question_is_asked_of_another_picture():
    table = pd.DataFrame({"image_name": [f"{row % 7}.jpg" for row in range(30)], "question": "what?", "answer": "a"})
    swapped = photographs.other_pictures(table)
    assert (swapped["image_name"] != table["image_name"]).all()
    assert set(swapped["image_name"]) == set(table["image_name"])
    assert table.groupby("image_name")["question"].size().sum() == len(swapped)


def test_a_classifier_of_words_reads_the_question_alone():
    asked = [("what color is the shoe", "black"), ("what color is the sofa", "red"), ("how many legs", "four")]
    train = pd.DataFrame([("a.jpg", *row) for row in asked * 5], columns=["image_name", "question", "answer"])
    rare = pd.DataFrame([("a.jpg", "how many legs", "Five")], columns=train.columns)
    said = photographs.answer_from_words(pd.concat([train, rare]), train.assign(image_name="other.jpg"))
    assert said == [{"four": "4"}.get(answer, answer) for answer in train["answer"]]  # as the official scores write it


@pytest.mark.parametrize(
    "style, caption",
    [
        ("concise", "black leather ankle boot"),
        ("detailed", "The photo shows women's black leather ankle boot."),
        ("creative", "Treat yourself to a lovely women's black leather ankle boot today!"),
    ],
)
def test_captions_are_made_of_names(style, caption):
    names = pd.DataFrame(
        {"image_name": ["a.jpg", "b.jpg"], "name": ["Find. Women's black leather ankle boot (38)", "x2"]}
    )
    assert photographs.captions_of(names, style).to_dict("records") == [{"image_name": "a.jpg", "caption": caption}]
