"""Several requests in one batch: the same answers as one by one, pictures encoded once, errors that stay where they belong."""

import json
import math
import re
from itertools import chain

import pytest
from PIL import Image

from blip2vqa.api import VQAModel, load
from blip2vqa.demo.answers import Asked, answer_all, loaded_names, names_for_questions
from blip2vqa.demo.cards import describe_adapters, short_name
from blip2vqa.demo.endpoints import Endpoints
from blip2vqa.demo.rendering import render
from helpers.caption_adapters import BASE, SCENES, count_encoded
from helpers.family_bases import random_adapter

PICTURES = [Image.open(SCENES / f"val-00{number}.png").convert("RGB") for number in range(3)]


@pytest.fixture(scope="module")
def model(two_adapters) -> VQAModel:
    return load(BASE, adapters=two_adapters, dtype="float32")


def test_a_batch_answers_as_single_requests_do_and_encodes_each_picture_once(model, monkeypatch):
    asked = [
        Asked(PICTURES[0], "how many shapes are there?", ("base", "two")),
        Asked(PICTURES[1], "what color is it?", ("one",)),
        Asked(PICTURES[2], "is there a square?", ("two", "one", "base")),
    ]
    alone = [answer_all(model, [one])[0] for one in asked]
    encoded = count_encoded(monkeypatch)
    together = answer_all(model, asked)
    assert sum(encoded) == 4  # three pictures and the grey one
    numbers = ("confidence", "probability_right")
    for one, several in zip(chain(*alone), chain(*together), strict=True):
        assert {**one, **dict.fromkeys(numbers)} == {**several, **dict.fromkeys(numbers)}
        assert [one[name] or 0 for name in numbers] == pytest.approx([several[name] or 0 for name in numbers], rel=1e-4)


def test_what_is_wrong_with_one_request_leaves_the_others(model):
    good = Asked(PICTURES[0], "what is it?", ("base", "one"))
    bad = [
        Asked(PICTURES[0], "what? " * 200, ("base",)),
        Asked(PICTURES[0], "what?", ("nobody",)),
        Asked(PICTURES[0], "", ("base",)),
    ]
    found = answer_all(model, [bad[0], good, *bad[1:]])
    assert found[1] == answer_all(model, [good])[0]
    assert [str(found[place]).split(";")[0] for place in (2, 3)] == [
        "adapter nobody: is not loaded",
        "No question: write one",
    ]
    assert re.fullmatch(r"question: \d+ tokens, but the base model has \d+ positions; shorten it", str(found[0]))


def test_an_adapter_that_was_calibrated_gives_the_probability_of_being_right(model):
    one, base = answer_all(model, [Asked(PICTURES[0], "what is it?", ("one", "base"))])[0]
    odds = one["confidence"] / (1 - one["confidence"])
    assert one["probability_right"] == pytest.approx(odds / (odds + math.e)) and base["probability_right"] is None


def test_the_answer_without_the_picture_is_the_same_for_every_picture(model):
    rows = [answer_all(model, [Asked(picture, "what color is it?", ("one",))])[0][0] for picture in PICTURES[:2]]
    for name in ("without_picture", "grey_picture"):
        assert rows[0][name] == rows[1][name]
    assert rows[0]["confidence"] != rows[1]["confidence"]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (None, "No list of names"), ("one", "No list of names"),
        ([1], "No name"), ([""], "No name"), ([str(n) for n in range(17)], "more than 16"),
    ],
)  # fmt: skip
def test_names_that_are_none(model, names, problem):
    ((found,),) = Endpoints(model).answer([{"path": str(SCENES / "val-000.png")}], ["what?"], [names])
    assert found["answers"] == [] and problem in found["error"]


def test_an_adapter_of_another_base_is_refused_and_nothing_lost(model, tiny_opt, tmp_path):
    other = random_adapter(tiny_opt, tmp_path / "other", 1)
    found = Endpoints(model).add_adapter(str(other))
    assert "does not fit base model" in found["error"] and found["models"] == ["base", "one", "two"]
    assert answer_all(model, [Asked(PICTURES[0], "what is it?", ("one",))])[0][0]["adapter"] == "one"


def test_cards_hold_what_the_manifest_says_and_are_escaped(model):
    one, two = describe_adapters(model)
    assert one["facts"]["style"] == "<b>bold</b>" and one["facts"]["rank"] == "4" and one["scores"][0][-1] == "rows"
    assert "better than the blind baseline" in one["verdict"]
    assert two["verdict"] is None and two["scores"] == [] and two["facts"]["made for"] == "tiny-blip2-opt"
    shown = render("adapters", **Endpoints(model).adapters())
    assert "&lt;b&gt;bold&lt;/b&gt;" in shown and "<b>" not in shown
    json.dumps(Endpoints(model).adapters())


def test_names(model):
    assert loaded_names(model) == names_for_questions(model) == ["base", "one", "two"]
    assert [short_name(place) for place in (str(BASE), "USER/NAME", "/a/b")] == ["tiny-blip2-opt", "USER/NAME", "b"]
