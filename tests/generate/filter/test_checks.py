"""Round trip and picture swap: what speaks against a question, and the model that is asked."""

import hashlib
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from blip2vqa import load
from blip2vqa.config.generate import WriterArguments
from blip2vqa.generate.ask.model_backend import ask_model
from blip2vqa.generate.filter.checks import (
    CheckAnswers,
    check_questions,
    draw_others,
    holds_for,
    picture_swap_problem,
    round_trip_problem,
)
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item, Question
from blip2vqa.inference.model_spec import ModelSpec
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter
from helpers.paths import ROOT

SAME = "the same answer from another picture"


def item(number: int, product: str | None = None, facts: dict[str, str] | None = None, **more) -> Item:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Item(
        f"{number}.png", Path(f"{number}.png"), digest, product or f"B{number}", "chair", "", facts or {}, **more
    )


def question(text: str, answer: str, kind: str, facts: dict[str, str], about: str = "") -> Question:
    return Question(item(0, facts=facts), text, answer, kind, "templates", about)


# What speaks against a question

BLACK, GRAY, BARE = {"object": "boot", "color": "black"}, {"object": "lamp", "color": "gray"}, {}
OPEN = ("What color is the boot?", "black", "color", BLACK, "color")
IS_IT = ("Is the product black?", "yes", "yes/no", BLACK, "color=black")
IS_IT_NOT = ("Is the product red?", "no", "yes/no", BLACK, "color=red")
CHOICE = ("Is it red, black, blue or pink?", "black", "comparison", BLACK, "color of 4")
TALL = {"proportion": "taller"}


@pytest.mark.parametrize(
    "asked, other, holds",
    [
        (OPEN, BLACK, True), (OPEN, GRAY, False), (OPEN, BARE, False),
        (OPEN, {"material": "black"}, False),
        (IS_IT, BLACK, True), (IS_IT, GRAY, False), (IS_IT, BARE, False),
        (IS_IT_NOT, BLACK, True), (IS_IT_NOT, GRAY, True), (IS_IT_NOT, BARE, True), (IS_IT_NOT, {"color": "red"}, False),
        (CHOICE, {"color": "black"}, True), (CHOICE, {"color": "red"}, False),
        (("Is it taller or wider?", "taller", "comparison", TALL, "taller"), TALL, True),
        (("Is it taller or wider?", "taller", "comparison", TALL, "taller"), {"proportion": "wider"}, False),
        (("Which is larger, the height or the width?", "height", "comparison", TALL, "height"), TALL, True),
        (("Which is larger, the height or the width?", "height", "comparison", TALL, "height"), BARE, False),
        (("Which is larger, the height or the width?", "height", "comparison", BARE, "height"), BARE, False),
        # A model's or an API's, of which only the words are known.
        (("What is its main hue?", "black", "other", BLACK), {"color": "black"}, True),
        (("What is its main hue?", "black", "other", BLACK), GRAY, False),
        (("How many laces are there?", "two", "count", BLACK), BLACK, False),
        (("What color is it?", "black", "color", BLACK), BLACK, True),
        (("Is the boot black?", "yes", "yes/no", BLACK), {"object": "lamp", "color": "black"}, True),
        (("Is the boot black?", "yes", "yes/no", BLACK), {"object": "boot", "color": "red"}, False),
        (("Are these boots?", "yes", "yes/no", BLACK), {"object": "boot", "color": "red"}, True),
        (("Are these boots?", "yes", "yes/no", BLACK), GRAY, False),
        (("Is the boot grey?", "no", "yes/no", BLACK), {"object": "boot", "color": "gray"}, False),
        (("Is the boot grey?", "no", "yes/no", BLACK), {"object": "boot", "color": "red"}, True),
        (("Does it shine?", "yes", "yes/no", BLACK), BLACK, False),
        (("Does it shine?", "no", "yes/no", BLACK), BLACK, True),
    ],
)  # fmt: skip
def test_whether_an_answer_is_right_for_another_item(asked, other, holds):
    assert holds_for(question(*asked), item(1, facts=other)) is holds


def test_what_the_other_picture_may_show_as_well_is_right_there():
    other = item(1, facts=GRAY, not_wrong=frozenset({"black"}))
    assert holds_for(question(*OPEN), other) and holds_for(question(*IS_IT), other)
    assert not holds_for(question(*IS_IT_NOT), replace(other, not_wrong=frozenset({"red"})))


@pytest.mark.parametrize(
    "said, swapped, facts, round_trip, swap",
    [
        ("black", "gray", GRAY, None, None),
        ("Black.", "", GRAY, None, None),
        ("dark", "gray", GRAY, 'answered "dark"', None),
        ("", "gray", GRAY, 'answered ""', None),
        ("black", "black", GRAY, None, SAME),
        ("black", "onyx", BARE, None, SAME),
        ("dark", "black", GRAY, 'answered "dark"', SAME),
        ("black", "black", BLACK, None, None),
    ],
)
def test_what_speaks_against_a_question(said, swapped, facts, round_trip, swap):
    answers = CheckAnswers(said, swapped, item(1, facts=facts))
    assert round_trip_problem(question(*OPEN), answers) == round_trip
    assert picture_swap_problem(question(*OPEN), answers) == swap


def test_without_another_picture_nothing_is_swapped():
    assert picture_swap_problem(question(*OPEN), CheckAnswers("black", "black", None)) is None


# The other picture


def test_others_are_of_other_content_and_of_another_product():
    # Ten products of three pictures each, one of which two listings share.
    items = [item(number, f"B{number // 3}") for number in range(30)] + [replace(item(0), item_id="B99")]
    others, owner = draw_others(items, 1), {one.digest: one for one in items[:30]}
    assert others.keys() == owner.keys()
    for digest, other in others.items():
        assert other.digest != digest and other.item_id != owner[digest].item_id
    shuffled = random.Random(0).sample(items, len(items))
    assert draw_others(shuffled, 1) == others != draw_others(items, 2)


def test_others_do_not_look_alike():
    items = [item(number, group=number // 10) for number in range(30)]
    others = draw_others(items, 0)
    assert all(others[one.digest].group != one.group for one in items)


def test_others_of_one_product_alone_are_its_other_pictures():
    items = [item(number, "B") for number in range(3)]
    assert all(other.digest != digest for digest, other in draw_others(items, 0).items())
    assert draw_others(items[:1], 0) == draw_others([], 0) == {}


def test_a_picture_more_changes_few_others():
    items = [item(number) for number in range(200)]
    before, after = draw_others(items, 0), draw_others([*items, item(200)], 0)
    assert sum(after[one.digest] != before[one.digest] for one in items) <= 8


# The model


@pytest.fixture
def questions(tmp_path) -> list[Question]:
    """Two about each of five pictures, two of one product."""
    rows = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (16, 16), (50 * number, 200 - 50 * number, 90)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        one = Item(path.name, path, digest, f"B{max(number, 1)}", "square", "", {"color": "red"})
        rows += [Question(one, text, "red", "color", "templates") for text in ("What color is it?", "Which hue?")]
    return rows


def arguments(model, **more) -> WriterArguments:
    return WriterArguments(**{"check_model": str(model), "dtype": "float32", "quantization": "none"} | more)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_model_answers_from_both_pictures(adapter, tiny_opt, questions, tmp_path):
    model = random_adapter(tiny_opt, tmp_path / "a", 1, prompt="{question} Say:") if adapter else tiny_opt
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        checked = check_questions(questions, arguments(model, lora_model_path="not/asked"), ledger, 3)
        asked = len(ledger.records())
    alone, others = load(model, dtype="float32", quantization="none"), draw_others([row.item for row in questions], 3)
    for row, one in zip(questions, checked, strict=True):
        assert one.other == others[row.item.digest] and one.other.item_id != row.item.item_id
        assert one.own == alone.answer(row.item.path, row.question)
        assert one.swapped == alone.answer(one.other.path, row.question)
    assert len({one.own for one in checked}) > 1
    assert asked <= 2 * len(questions)


def test_what_was_checked_is_not_asked_again(tiny_opt, questions, tmp_path, monkeypatch):
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ask_model(questions, arguments("", base_model_id=str(tiny_opt)), ledger)
        assert len(ledger.records()) == len(
            questions
        )  # the same model has answered from the questions' own pictures by now
        first = check_questions(questions, arguments(tiny_opt), ledger, 0)
        monkeypatch.setattr(ModelSpec, "load", lambda *args, **kwargs: pytest.fail("weights were read"))
        assert check_questions(questions, arguments(tiny_opt), ledger, 0) == first


def test_a_single_picture_is_not_swapped(tiny_opt, questions, tmp_path):
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        checked = check_questions(questions[:2], arguments(tiny_opt), ledger, 0)
    assert [(one.swapped, one.other) for one in checked] == [("", None)] * 2
    assert all(one.own for one in checked)


def test_no_such_model(questions, tmp_path):
    with Ledger(tmp_path / "ledger.jsonl") as ledger, pytest.raises(InputError, match="nowhere/model"):
        check_questions(questions, arguments("nowhere/model"), ledger, 0)


def test_the_checks_need_no_torch_by_themselves():
    code = "import sys, blip2vqa.generate.filter.checks; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
