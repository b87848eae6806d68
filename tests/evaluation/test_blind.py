"""What is predicted without the picture: to questions, and as captions."""

import random

import pytest

from blip2vqa.data.captions import group_by_image
from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.evaluation import blind
from blip2vqa.evaluation.blind import BlindBaseline, BlindCaption
from helpers.scored_rows import caption_scores


def example(question="What color is it?", answers=("red",), image="a", kind="color", row=0) -> Example:
    return Example(row, ImageSource(image), f"{image}.jpg", f"digest-{image}", question, tuple(answers), kind, {})


def train(*pairs: tuple[str, str]) -> list[Example]:
    return [example(question, (answer,)) for question, answer in pairs]


def caption_example(name: str, *captions: str) -> Example:
    return Example(2, None, name, f"digest of {name}", "", captions, "caption", {})


def cider(predictions: list[str], references: list[list[str]]) -> list[float]:
    return caption_scores("cider", predictions, references).scores


# Questions


def test_blind_baseline_takes_the_question_then_its_first_words_then_anything():
    baseline = BlindBaseline(
        train(
            ("What color is the cat?", "black"), ("what color is the CAT", "Black"), ("What color is the cat", "white"),
            ("What color is a dog?", "brown"), ("What color is a fox?", "brown"), ("What color is a cow?", "brown"),
            ("Is it big?", "yes"), ("Is it old?", "yes"), ("Is it new?", "yes"), ("Is it red?", "no"),
        )
    )  # fmt: skip
    asked = ["What color is the cat?", "What color is it?", "How many?", "IS IT RED", "Is it big now?"]
    assert baseline.predict(train(*((question, "") for question in asked))) == ["black", "brown", "brown", "no", "yes"]


def test_blind_baseline_counts_answers_normalised_and_gives_the_commonest_spelling():
    answers = ["Two", "2", "two", "two", "three", "three", "three"]
    assert BlindBaseline(train(*(("How many?", text) for text in answers))).predict(train(("How many?", ""))) == ["two"]


def test_blind_baseline_breaks_ties_by_what_came_first_and_skips_rows_without_answer():
    examples = [example(answers=()), *train(("Is it?", "yes"), ("Is it?", "no"))]
    assert BlindBaseline(examples).predict(train(("Is it?", ""))) == ["yes"]
    with pytest.raises(ValueError, match="at least one"):
        BlindBaseline([example(answers=())])


# Captions


def test_the_blind_caption_is_the_one_most_like_those_of_other_images():
    train = [
        caption_example("a", "a dog runs", "something else altogether"), caption_example("b", "the dog runs home"),
        caption_example("c", "a dog runs far"), caption_example("d", "blue boats"), caption_example("e"),
        # Alike among themselves, but of one image
        caption_example("f", *["some green apples lie in a bowl"] * 5),
    ]  # fmt: skip
    found = BlindCaption(train)
    assert found.caption == "a dog runs"
    assert found.predict(train[:2]) == ["a dog runs"] * 2
    assert BlindCaption(random.Random(1).sample(train, len(train))).caption == "a dog runs"


def test_the_blind_caption_is_near_the_best_by_comparing_each_with_each(monkeypatch):
    words = [random.Random(seed).choices("abcdefgh", k=6) for seed in range(60)]
    train = [caption_example(str(n // 2), " ".join(caption)) for n, caption in enumerate(words)]
    images = [list(one.answers) for one in group_by_image(train)]
    best = max((sum(cider([caption] * 30, images)), caption) for row in images for caption in row)
    # The metric compares with the own image too, clips, and punishes length: that makes little difference.
    assert sum(cider([BlindCaption(train).caption] * 30, images)) > 0.9 * best[0]
    monkeypatch.setattr(blind, "SAMPLE_IMAGES", 5)
    assert BlindCaption(train).caption == BlindCaption(train[::-1]).caption


def test_blind_captions_of_very_little():
    assert BlindCaption([caption_example("a", "b", "a")]).caption == "a"
    assert BlindCaption([caption_example("a", "same"), caption_example("b", "same")]).caption == "same"
    assert BlindCaption([caption_example("a", "...")]).caption == "..."
    with pytest.raises(ValueError, match="at least one training example with a caption"):
        BlindCaption([caption_example("a"), caption_example("b", " ")])
