"""A conversation: what of it stands in the prompt, and of which bases."""

import pytest

from blip2vqa.api import load
from blip2vqa.demo.chat import describe_chat, keeps_history, with_history
from blip2vqa.demo.endpoints import Endpoints
from helpers.caption_adapters import BASE, SCENES
from helpers.tiny_families import make_instructblip


@pytest.fixture(scope="module")
def t5(tiny_t5):
    return load(tiny_t5, dtype="float32")


def filled(model, question: str) -> str:
    return model.request.text.fill([question])[0]


def test_turns_stand_in_the_prompt_as_they_were_asked(t5):
    text, kept = with_history(t5, "base", "And what color?", [("What is it?", "a shoe"), ("For whom?", "men")])
    assert kept == 2 and filled(t5, text) == (
        "Question: What is it? Answer in one word: a shoe. Question: For whom? Answer in one word: men. "
        "Question: And what color? Answer in one word:"
    )
    assert keeps_history(t5) and "follows instructions" in describe_chat(t5)


def test_other_bases_are_asked_single_questions():
    model = load(BASE, dtype="float32")
    assert with_history(model, "base", "And what color?", [("What is it?", "a shoe")]) == ("And what color?", 0)
    assert "answers single questions" in describe_chat(model)


def test_the_latest_turns_that_fit_are_kept(tmp_path):
    model = load(make_instructblip(tmp_path / "base"), dtype="float32")
    turns = [(f"question {number}?", "so") for number in range(40)]
    text, kept = with_history(model, "base", "and this?", turns)
    assert 0 < kept < 40 and text.startswith(f"question {40 - kept}?") and text.endswith("and this?")
    longer, _ = with_history(model, "base", "and this?", turns[-kept - 1 :])
    assert longer == text  # one turn more would not fit


def test_an_answer_depends_on_the_turns_before_it(t5):
    picture = {"path": str(SCENES / "val-000.png")}
    ends = Endpoints(t5)
    histories = [None, [["What color is the square?", "red"]], [["x", "y"], "z"]]
    ((first, second, bad),) = ends.chat([picture] * 3, ["Is the square red?"] * 3, [None] * 3, histories)
    assert first["error"] is None and first["turns_in_prompt"] == 0 and second["turns_in_prompt"] == 1
    assert first["confidence"] != second["confidence"]
    assert second["history"] == [*histories[1], ["Is the square red?", second["answer"]]]
    assert bad["error"] == "history: is no list of [question, answer]" and bad["history"] == histories[2]
