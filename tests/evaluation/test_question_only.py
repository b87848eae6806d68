"""Answers guessed from questions alone: against plain lookups, on drawn tables, and before training."""

import csv
import hashlib
import logging
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB

from blip2vqa.data.answers import normalize_answer
from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.evaluation import question_only
from blip2vqa.evaluation.compare import blind_answers
from blip2vqa.evaluation.question_only import BlindScore, blind_guesses, blind_score, right
from helpers.finetune_runs import make_run
from helpers.paths import ROOT

COLORS = ["red", "blue", "green", "black"]


def chairs_and_lamps(images: int = 60, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Questions, answers and pictures: chairs are mostly black, lamps mostly red, and half of all are round."""
    rng, rows = random.Random(seed), []
    for image in range(images):
        thing, likely = rng.choice([("chair", "black"), ("lamp", "red")])
        color = likely if rng.random() < 0.7 else rng.choice(COLORS)
        rows.append((f"What color is the {thing}?", color, f"image {image}"))
        rows.append((f"Is the {thing} round?", rng.choice(["yes", "no"]), f"image {image}"))
    return tuple(map(list, zip(*rows, strict=True)))


def test_a_question_often_asked_is_answered_by_its_most_common_answer():
    questions, answers, groups = chairs_and_lamps(400)
    guessed, confidence, runner_up = blind_guesses(questions, answers, groups)
    for question, likely in (("What color is the chair?", "black"), ("What color is the lamp?", "red")):
        rows = [row for row, text in enumerate(questions) if text == question]
        assert {guessed[row] for row in rows} == {likely}
        share = Counter(answers[row] for row in rows)[likely] / len(rows)
        assert np.allclose(confidence[rows], share, atol=0.08)
        assert (runner_up[rows] < 0.2).all()


def test_the_score_is_the_share_that_is_right():
    questions, answers, groups = chairs_and_lamps()
    guessed = blind_guesses(questions, answers, groups, seed=3).answers
    share = sum(guess == answer for guess, answer in zip(guessed, answers, strict=True)) / len(answers)
    assert blind_score(questions, answers, groups, seed=3) == BlindScore(share, 120)


def test_rows_of_a_group_are_not_guessed_from_one_another():
    """Each picture has a question of its own, asked five times: known by heart, its answer would be right."""
    rng = random.Random(0)
    words = [f"word{number}" for number in range(80)]
    rows = [(f"{word}?", answer, word) for word in words for answer in [rng.choice(COLORS)] for _ in range(5)]
    questions, answers, groups = zip(*rows, strict=True)
    assert blind_score(questions, answers, groups).score < 0.4
    assert blind_score(questions, answers, list(map(str, range(len(rows))))).score == 1


def test_words_tell_of_questions_never_asked():
    things = [f"thing{number}" for number in range(40)]
    rows = [(f"What {what} is the {thing}?", answer, thing)
            for thing in things for what, answer in (("color", "red"), ("shape", "round"))]  # fmt: skip
    assert blind_score(*zip(*rows, strict=True)).score == 1


def test_the_order_of_rows_changes_nothing_and_the_seed_does():
    questions, answers, groups = chairs_and_lamps()
    whole = blind_guesses(questions, answers, groups, seed=1)
    order = list(range(len(questions)))
    random.Random(5).shuffle(order)
    again = blind_guesses(*([column[row] for row in order] for column in (questions, answers, groups)), seed=1)
    assert again.answers == [whole.answers[row] for row in order]
    assert np.array_equal(again.confidence, whole.confidence[order])
    assert np.array_equal(again.runner_up, whole.runner_up[order])
    assert not np.array_equal(blind_guesses(questions, answers, groups, seed=2).confidence, whole.confidence)
    assert ((0 <= whole.runner_up) & (whole.runner_up <= whole.confidence) & (whole.confidence <= 1)).all()


def test_questions_and_answers_are_compared_normalised():
    rows = [("What COLOR is it?", "Red."), ("what color is it", "the red"), ("What color is it??", "red")] * 3
    questions, answers = zip(*rows, strict=True)
    groups = [str(row) for row in range(9)]
    assert blind_guesses(questions, answers, groups).answers == ["red"] * 9
    assert right(["red", "2"], ["a RED", "two"]).tolist() == [True, True]


@pytest.mark.parametrize("folds", [2, 5])
def test_where_nothing_can_be_learnt(folds, monkeypatch):
    monkeypatch.setattr(question_only, "FOLDS", folds)
    assert blind_score([], [], []) == BlindScore(None, 0)
    assert blind_score(["a?", "b?"], ["x", "y"], ["same", "same"]) == BlindScore(None, 0)
    guesses = blind_guesses(["a?", "b?"], ["x", "y"], ["same", "same"])
    assert guesses.answers == ["", ""] and not guesses.confidence.any()
    assert blind_score(["a?", "b?", "c?"], ["x"] * 3, ["1", "2", "3"]) == BlindScore(1.0, 3)
    # Each answer stands on one side alone, so that neither is ever guessed right.
    assert blind_score(["a?", "a?"], ["x", "y"], ["1", "2"]) == BlindScore(0.0, 2)


def test_texts_without_words_or_of_other_scripts():
    questions = ["???", "", "这是什么颜色？", "¿De qué color?", "x" * 5000, "\0"] * 2
    assert blind_score(questions, ["", "?", "红", "rojo", "x", "a"] * 2, [str(row) for row in range(12)]).n == 12


def test_of_a_large_table_whole_groups_are_sampled(monkeypatch):
    questions, answers, groups = chairs_and_lamps(60)
    monkeypatch.setattr(question_only, "MOST_ROWS", 51)
    sampled = blind_score(questions, answers, groups)
    assert sampled.n == 50  # two a picture
    backwards = blind_score(questions[::-1], answers[::-1], groups[::-1])
    assert backwards == sampled


def test_many_questions_are_guessed_in_batches_that_change_nothing(monkeypatch):
    questions, answers, groups = chairs_and_lamps()
    questions = [f"{text} {number % 50}" for number, text in enumerate(questions)]
    whole = blind_guesses(questions, answers, groups)
    sizes, predict = [], MultinomialNB.predict_proba
    monkeypatch.setattr(
        MultinomialNB, "predict_proba", lambda self, rows: sizes.append(rows.shape[0]) or predict(self, rows)
    )
    monkeypatch.setattr(question_only, "AT_ONCE", 7 * len(set(answers)))
    again = blind_guesses(questions, answers, groups)
    assert max(sizes) == 7 < len(set(questions)) / question_only.FOLDS
    assert again.answers == whole.answers
    assert all(np.array_equal(one, other) for one, other in zip(again[1:], whole[1:], strict=True))


def test_of_many_questions_some_are_searched_for_words(monkeypatch):
    """What they have in common is in every part of them."""
    questions, answers, groups = chairs_and_lamps(400)
    questions = [f"{text} {number}" for number, text in enumerate(questions)]
    score = blind_score(questions, answers, groups).score
    fitted, fit = [], TfidfVectorizer.fit
    monkeypatch.setattr(TfidfVectorizer, "fit", lambda self, texts: fitted.append(len(texts)) or fit(self, texts))
    monkeypatch.setattr(question_only, "MOST_READ", 300)
    assert abs(blind_score(questions, answers, groups).score - score) < 0.05 and score > 0.5
    assert fitted == [267]  # every third of 800


def test_rare_answers_are_never_guessed(monkeypatch):
    monkeypatch.setattr(question_only, "MOST_ANSWERS", 2)
    rows = [(f"What is {name}?", name, f"{name} {number}")
            for name, count in (("a1", 40), ("b1", 30), ("c1", 10)) for number in range(count)]  # fmt: skip
    assert set(blind_guesses(*zip(*rows, strict=True)).answers) == {"a1", "b1"}


def test_as_strong_as_the_lookup_on_the_table_of_drawings():
    with (ROOT / "assets" / "drawings" / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    examples = [
        Example(
            number, ImageSource(""), row["image_name"], row["image_name"], row["question"], (row["answer"],), "", {}
        )
        for number, row in enumerate(rows)
    ]
    columns = [[row[name] for row in rows] for name in ("question", "answer", "image_name")]
    for seed in range(3):
        looked_up = blind_answers(examples, seed=seed)
        reference = np.mean(
            [
                normalize_answer(guess) == normalize_answer(row["answer"])
                for guess, row in zip(looked_up, rows, strict=True)
            ]
        )
        assert blind_score(*columns, seed=seed).score >= reference - 0.005


# Before training


QUICK = ("--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false")


def test_the_score_stands_before_training(tiny_opt, drawn, tmp_path, capsys, caplog):
    from blip2vqa.training.recipe import finetune

    with caplog.at_level(logging.WARNING, logger="blip2vqa"):
        finetune(make_run(tiny_opt, drawn, tmp_path / "run", *QUICK))
    shown = [line for line in capsys.readouterr().out.splitlines() if "question alone:" in line]
    assert len(shown) == 1
    assert shown[0].endswith(
        "of the answers can be guessed without the picture (5-fold classifier of the question's text)"
    )
    with drawn[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    digests = [hashlib.sha256((drawn[0] / row["image_name"]).read_bytes()).hexdigest() for row in rows]
    score = blind_score([row["question"] for row in rows], [row["answer"] for row in rows], digests).score
    # "How many" is always one, and "Is it red" mostly no.
    assert score > 0.5 and shown[0].split()[2] == f"{score:.1%}"
    warned = [record.getMessage() for record in caplog.records if "guessed" in record.getMessage()]
    said = f"{score:.1%} of the answers can be guessed from the question alone, more than 50%: "
    assert len(warned) == 1 and warned[0].startswith(said)


def test_a_balanced_table_is_not_warned_of(tiny_opt, tmp_path, capsys, caplog):
    from blip2vqa.training.recipe import finetune
    from helpers.tiny_blip2 import make_table

    images, table = make_table(tmp_path / "even", images=16)
    with table.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[1] in ("question", "What color is the square?")]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with caplog.at_level(logging.WARNING, logger="blip2vqa"):
        finetune(make_run(tiny_opt, (images, table), tmp_path / "run", *QUICK))
    assert "question alone:" in capsys.readouterr().out
    assert not [record for record in caplog.records if "guessed" in record.getMessage()]


def test_captions_have_no_question_to_guess_from(tiny_opt, drawn, tmp_path, capsys):
    from blip2vqa.training.recipe import finetune

    table = tmp_path / "captions.csv"
    rows = [(f"{number}.png", "a square") for number in range(12)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "caption"), *rows])
    finetune(
        make_run(tiny_opt, (drawn[0], table), tmp_path / "run", "--task", "caption", "--max_new_tokens", "5", *QUICK)
    )
    shown = capsys.readouterr().out
    assert "Fine-tuning" in shown and "question alone" not in shown


def test_both_sides_of_the_split_count_and_rows_without_an_answer_do_not():
    from blip2vqa.training.data import Rows, RunData

    def example(row: int, answers: tuple[str, ...]) -> SimpleNamespace:
        return SimpleNamespace(question="what?", answer=answers[0] if answers else "", digest=str(row))

    rows = Rows([example(row, ("red",)) for row in range(4)], [example(8, ()), example(9, ("red",))], [])
    assert RunData(rows, rows.train, None).blind == BlindScore(1.0, 5)
    assert RunData(Rows([], [], []), [], None).blind == BlindScore(None, 0)
