"""A model as question writer and answerer: what it says alone, each picture looked at once, nothing computed twice."""

import gc
import hashlib
import logging
import os
import weakref
from dataclasses import replace

import pytest
from transformers import Blip2VisionModel

from blip2vqa import load
from blip2vqa.config.generate import WriterArguments
from blip2vqa.generate.ask import model_backend, respondent
from blip2vqa.generate.ask.model_backend import as_question, ask_model
from blip2vqa.generate.ask.respondent import find_answerer
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item, Question
from blip2vqa.inference.model_spec import ModelSpec
from blip2vqa.utils.errors import InputError
from helpers.family_bases import MAKERS, Bases, random_adapter
from helpers.tiny_blip2 import COLORS

ASKED = (("What color is the square?", "color"), ("Is the square red?", "yes/no"), ("How many are there?", "count"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def questions(drawn) -> list[Question]:
    """Three about each of four pictures; not by picture, as a caller may have shuffled them."""
    items = []
    for number in range(4):
        path = drawn[0] / f"{number}.png"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        facts = {"color": list(COLORS)[number % len(COLORS)]}
        items.append(Item(path.name, path, digest, f"item{number}", "square", "A square", facts))
    return [
        Question(item, text, item.facts["color"], kind, "templates", "color") for text, kind in ASKED for item in items
    ]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        yield ledger


@pytest.fixture
def answered(monkeypatch) -> list[str]:
    """The questions that a model is really asked."""
    calls, answer = [], respondent.answer_examples

    def answer_and_note(loaded, features, examples, *args, **kwargs):
        calls.extend(example.question for example in examples)
        return answer(loaded, features, examples, *args, **kwargs)

    monkeypatch.setattr(respondent, "answer_examples", answer_and_note)
    return calls


@pytest.fixture
def no_weights(monkeypatch):
    """Loading a model fails the test."""
    monkeypatch.setattr(ModelSpec, "load", lambda *args, **kwargs: pytest.fail("weights were read"))


def arguments(base=None, **more) -> WriterArguments:
    given = {"base_model_id": base and str(base), "dtype": "float32", "quantization": "none", "batch_size": 3}
    return WriterArguments(**given | more)


# Answers


@pytest.mark.parametrize("kind", MAKERS)
def test_answers_are_those_of_the_model_alone(kind, bases, questions, ledger):
    rows = ask_model(questions, arguments(bases[kind]), ledger)
    model = load(bases[kind], dtype="float32", quantization="none")
    alone = [model.answer(row.item.path, row.question) for row in questions[::2]]
    assert [row.raw_answer for row in rows[::2]] == alone
    assert len(set(alone)) > 1
    for row, asked in zip(rows, questions, strict=True):
        kept = replace(row, answer=asked.answer, source=asked.source, raw_answer="", prompt_hash="")
        assert kept == asked
        assert row.source == f"model:{kind}" and row.answer == model_backend.clean_answer(row.raw_answer)
    assert len({row.prompt_hash for row in rows}) == len(rows)


@pytest.mark.parametrize(
    "raw, answer", [("Dark  Red.", "dark red"), ("", ""), (" Yes, it is a Box. ", "yes, it is a box"), ("3.5", "3.5")]
)
def test_answers_are_cleaned_and_never_cut(raw, answer):
    assert model_backend.clean_answer(raw) == answer


def test_each_picture_is_looked_at_once(tiny_opt, questions, ledger, monkeypatch):
    calls, look = [], Blip2VisionModel.forward

    def look_and_count(self, pixel_values, **kwargs):
        calls.append(len(pixel_values))
        return look(self, pixel_values=pixel_values, **kwargs)

    monkeypatch.setattr(Blip2VisionModel, "forward", look_and_count)
    ask_model(questions, arguments(tiny_opt), ledger)
    assert calls == [3, 1]


def test_an_adapter_answers_as_it_was_trained_to_but_never_by_lot(tiny_opt, questions, ledger, tmp_path):
    drawing = {"max_new_tokens": 4, "do_sample": True, "temperature": 5.0}
    adapter = random_adapter(tiny_opt, tmp_path / "mine", 1, prompt="{question}? Say:", decoding=drawing)
    args = arguments(lora_model_path=str(adapter))
    rows = ask_model(questions, args, ledger)
    decoding = find_answerer(args).request.decoding
    assert (decoding.do_sample, decoding.max_new_tokens) == (False, 4)
    greedy = random_adapter(tiny_opt, tmp_path / "greedy", 1, prompt="{question}? Say:", decoding={"max_new_tokens": 4})
    model = load(greedy, dtype="float32", quantization="none")
    assert [row.raw_answer for row in rows[:4]] == [model.answer(row.item.path, row.question) for row in questions[:4]]
    assert {row.source for row in rows} == {"model:mine"}
    base = ask_model(questions, arguments(tiny_opt), ledger)
    assert [row.raw_answer for row in base] != [row.raw_answer for row in rows]


def test_a_question_asked_twice_is_answered_once(tiny_opt, questions, ledger, answered):
    rows = ask_model(questions + questions, arguments(tiny_opt), ledger)
    assert len(answered) == len(questions) == len(ledger.records())
    assert rows[: len(questions)] == rows[len(questions) :]


def test_a_question_too_long_for_the_model_is_not_answered(tiny_opt, questions, ledger, caplog):
    long, spelt = "What color is it? " * 20, "Is this an <image>?"
    asked = [questions[0], replace(questions[0], question=long), replace(questions[1], question=spelt)]
    with caplog.at_level(logging.WARNING):
        rows = ask_model(asked, arguments(tiny_opt), ledger)
    assert [row.raw_answer for row in rows][1:] == ["", ""]
    assert rows[0].raw_answer == load(tiny_opt, dtype="float32").answer(asked[0].item.path, asked[0].question) != ""
    assert "2 questions are longer than it can read" in caplog.text


def test_nothing_asked(tiny_opt, ledger, no_weights):
    assert ask_model([], arguments(tiny_opt), ledger) == []


def test_the_model_leaves_memory(tiny_opt, questions, ledger, monkeypatch):
    made, read = [], ModelSpec.load

    def load_and_note(*args, **kwargs):
        found = read(*args, **kwargs)
        made.append(weakref.ref(found[0].model))
        return found

    monkeypatch.setattr(ModelSpec, "load", load_and_note)
    gc.disable()
    try:
        ask_model(questions, arguments(tiny_opt), ledger)
        assert [model() for model in made] == [None]
    finally:
        gc.enable()


# Going on


def test_only_what_is_missing_is_computed(tiny_opt, questions, tmp_path, answered):
    args, half, whole = arguments(tiny_opt), tmp_path / "half.jsonl", tmp_path / "whole.jsonl"
    with Ledger(whole) as ledger:
        expected = ask_model(questions, args, ledger)
    lines = whole.read_text().splitlines(keepends=True)
    half.write_text("".join(lines[::2]))
    answered.clear()
    with Ledger(half) as ledger:
        assert ask_model(questions, args, ledger) == expected
    assert len(answered) == len(lines) // 2


def test_with_nothing_missing_no_model_is_loaded(tiny_opt, questions, tmp_path, monkeypatch):
    path, args = tmp_path / "ledger.jsonl", arguments(tiny_opt)
    with Ledger(path) as ledger:
        expected = ask_model(questions, args, ledger)
    monkeypatch.setattr(ModelSpec, "load", lambda *args, **kwargs: pytest.fail("weights were read"))
    with Ledger(path) as ledger:
        assert ask_model(questions[::-1], args, ledger) == expected[::-1]


def test_an_interrupted_run_goes_on(tiny_opt, questions, tmp_path, monkeypatch, answered):
    monkeypatch.setattr(respondent, "PICTURES_TOGETHER", 2)
    path, args, add = tmp_path / "ledger.jsonl", arguments(tiny_opt), Ledger.add

    def add_or_stop(self, records):
        if self.records():
            raise KeyboardInterrupt
        add(self, records)

    with monkeypatch.context() as patch, Ledger(path) as ledger:
        patch.setattr(Ledger, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            ask_model(questions, args, ledger)
        kept = len(ledger.records())
    answered.clear()
    assert 0 < kept < len(questions)
    with Ledger(path) as ledger:
        rows = ask_model(questions, args, ledger)
    assert len(answered) == len(questions) - kept
    with Ledger(tmp_path / "whole.jsonl") as ledger:
        assert rows == ask_model(questions, args, ledger)


def test_what_decides_an_answer_decides_its_key(tiny_opt, questions, tmp_path):
    def key(args: WriterArguments, row: Question = questions[0]) -> str:
        return find_answerer(args).key(row.item, row.question)

    one, two = (random_adapter(tiny_opt, tmp_path / f"{seed}", seed, prompt="{question}") for seed in (1, 2))
    other_prompt = random_adapter(tiny_opt, tmp_path / "prompt", 1, prompt="{question} It is")
    kinds = [
        arguments(tiny_opt), arguments(tiny_opt, dtype="bfloat16"), arguments(tiny_opt, quantization="8bit"),
        *(arguments(lora_model_path=str(adapter)) for adapter in (one, two, other_prompt)),
    ]  # fmt: skip
    keys = [key(args) for args in kinds] + [key(kinds[0], questions[1]), key(kinds[0], questions[4])]
    assert len(set(keys)) == len(keys)
    assert keys[:6] == [key(args) for args in kinds]
    assert key(replace(kinds[0], batch_size=1)) == keys[0]
    weights = next(tiny_opt.glob("*.safetensors"))
    before = weights.stat()
    os.utime(weights, (0, 0))
    assert key(kinds[0]) != keys[0]
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert key(kinds[0]) == keys[0]


# Questions


@pytest.mark.parametrize("kind", ["opt", "t5", "instructblip-t5", "blip-caption"])
def test_questions_are_those_of_the_model_alone(kind, bases, questions, ledger):
    rows = ask_model(questions[:4], arguments(bases[kind], model_writes="questions"), ledger)
    instructed = "Given the image, generate a question whose answer is: {question}. Question:"
    plain = 'Write a question about the picture whose answer is "{question}". Question:'
    prompt = instructed if kind.startswith("instruct") else plain
    model = load(bases[kind], dtype="float32", quantization="none", prompt=prompt, max_new_tokens=30)
    for row, asked in zip(rows, questions, strict=False):
        room = kind != "opt"  # 64 positions: none for this prompt and 30 tokens
        assert row.raw_answer == (model.answer(asked.item.path, asked.answer) if room else "")
        question, problem = as_question(row.raw_answer, asked.answer)
        assert (row.question, row.answer, row.source) == (question, asked.answer, f"model:{kind}")
        assert row.about == "" != asked.about
        assert row.verdicts == ({"form": problem} if problem else {})


@pytest.mark.parametrize(
    "raw, answer, question, problem",
    [
        ("What color is the box?", "red", "What color is the box?", None),
        ("what color is the box", "red", "what color is the box?", None),
        ("Is it made of wood.", "yes", "Is it made of wood?", None),
        ("doesn't it shine", "no", "doesn't it shine?", None),
        (' Question: "What is\n this thing?" Answer: red', "red", "What is this thing?", None),
        ("The box has which color?", "red", "The box has which color?", None),
        ("a red box", "red", "a red box", "not a question"),
        ("", "red", "", "not a question"),
        ("?", "red", "?", "not a question"),
        ("What color?", "red", "What color?", "not a question"),
        ("Is the box red or blue?", "red", "Is the box red or blue?", "names its answer"),
        ("What color are the shoes?", "shoe", "What color are the shoes?", "names its answer"),
        ("Is it a grey box?", "gray", "Is it a grey box?", "names its answer"),
        ("Why is this coffee table here?", "coffee table", "Why is this coffee table here?", "names its answer"),
        ("What is stored in it?", "red", "What is stored in it?", None),
        ("what " * 20, "red", f"{'what ' * 19}what?", None),
        ("what " * 21, "red", f"{'what ' * 20}what?", "more than 20 words"),
        ("whatever it may be", "red", "whatever it may be", "not a question"),
    ],
)
def test_what_counts_as_a_question(raw, answer, question, problem):
    assert as_question(raw, answer) == (question, problem)


# What is wrong


@pytest.mark.parametrize("kind", ["vilt", "blip-vqa"])
def test_a_base_that_cannot_write_is_refused(kind, bases, questions, ledger, no_weights):
    with pytest.raises(InputError, match="cannot write questions; with --model_writes answers") as caught:
        ask_model(questions, arguments(bases[kind], model_writes="questions"), ledger)
    assert len(caught.value.problems) == 1


def test_an_adapter_of_listed_answers_cannot_write(tiny_opt, questions, ledger, tmp_path, no_weights):
    adapter = random_adapter(tiny_opt, tmp_path / "listed", 0, answers=["red", "blue"])
    with pytest.raises(InputError, match="answers of its list alone"):
        ask_model(questions, arguments(lora_model_path=str(adapter), model_writes="questions"), ledger)


def test_an_adapter_for_captions_cannot_answer(tiny_opt, questions, ledger, tmp_path, no_weights):
    adapter = random_adapter(tiny_opt, tmp_path / "captions", 0, task="caption", prompt="a photo of")
    with pytest.raises(InputError, match="it writes captions"):
        ask_model(questions, arguments(lora_model_path=str(adapter)), ledger)


def test_no_such_model(questions, ledger, tmp_path):
    with pytest.raises(InputError, match="no such folder, and not reachable on the Hub"):
        ask_model(questions, arguments(tmp_path / "none"), ledger)


@pytest.mark.parametrize(
    "data, message", [(None, "cannot be read any more"), (b"something else", "has changed since it was checked")]
)
def test_a_picture_that_changed_stops_the_run_and_keeps_what_was_said(
    data, message, tiny_opt, questions, ledger, tmp_path, monkeypatch
):
    monkeypatch.setattr(respondent, "PICTURES_TOGETHER", 2)
    path = tmp_path / "picture.png"
    if data:
        path.write_bytes(data)
    moved = [
        replace(row, item=replace(row.item, path=path)) if row.item.item_id == "item3" else row for row in questions
    ]
    with pytest.raises(InputError, match=message):
        ask_model(moved, arguments(tiny_opt), ledger)
    assert len(ledger.records()) == 6
