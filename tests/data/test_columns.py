"""Columns under the names that people give them."""

import pytest

from blip2vqa.data.columns import NAMES, find_column
from blip2vqa.utils.errors import InputError


@pytest.mark.parametrize(
    ("columns", "kind", "found"),
    [
        (["image", "image_name"], "image", "image_name"),
        (["image_id", "image"], "image", "image"),
        (["image_id", "question"], "image", "image_id"),
        (["Image Path"], "image", "Image Path"),
        (["FileName"], "image", "FileName"),
        (["full_image_path", "image_id"], "image", "full_image_path"),
        (["answer_type", "answer_id"], "answer", None),
        (["question_id", "question_type"], "question", None),
        (["answers", "multiple_choice_answer"], "answer", "answers"),
        (["answer", "answers"], "answer", "answer"),
        (["true_answer", "predicted_answer"], "answer", "true_answer"),
        (["true_answer", "predicted_answer"], "prediction", "predicted_answer"),
        (["answer", "pred"], "prediction", "pred"),
        (["answer"], "prediction", None),
        (["image", "text"], "caption", "text"),
    ],
)
def test_usual_names(columns, kind, found):
    assert find_column("t", columns, kind) == found


def test_two_usual_names_are_not_guessed_between():
    with pytest.raises(
        InputError, match="path and filename may each be the images' column; say which by --image_column"
    ):
        find_column("t", ["path", "filename"], "image")


def test_the_column_that_is_asked_for():
    assert find_column("t", ["image_name", "thumb"], "image", "thumb") == "thumb"
    assert find_column("t", ["answer"], "answer", "Answer") == "answer"
    with pytest.raises(InputError, match="--image_column big: no such column; its columns are image_name, thumb"):
        find_column("t", ["image_name", "thumb"], "image", "big")


def test_no_name_stands_for_two_kinds():
    names = [name for kind in ("image", "question", "answer", "prediction") for group in NAMES[kind] for name in group]
    assert len(names) == len(set(names))
