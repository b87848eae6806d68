"""Systems compared on rows worked out by hand, and intervals and p-values on drawn ones."""

import json
import random

import numpy as np
import pytest

from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.evaluation.compare import SystemRun, blind_answers, compare
from blip2vqa.evaluation.scores import score
from blip2vqa.evaluation.verdict import BLIND


def example(row=0, image="a", answers=("red",), question="What color is it?", kind="color") -> Example:
    return Example(row, ImageSource(image), f"{image}.jpg", f"digest-{image}", question, tuple(answers), kind, {})


def run(name, answers, **more) -> SystemRun:
    return SystemRun(name, list(answers), "base", None, "none", "{question}", **more)


def drawn(images=40, questions=5, seed=0) -> list[Example]:
    rng = random.Random(seed)
    return [
        example(images * place + image, str(image), (rng.choice(["red", "blue", "green"]),))
        for place in range(questions)
        for image in range(images)
    ]


def answering(examples, right: float, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [item.answer if rng.random() < right else "nonsense" for item in examples]


def by_name(result: dict) -> dict[str, dict]:
    return {row["name"]: row for row in result["systems"]}


# Scores, agreement, disagreements


def test_by_hand():
    examples = [
        example(0, "a"), example(1, "b", ["Two"], "How many?", "count"), example(2, "b", []), example(3, "c", ["red"] * 4),
    ]  # fmt: skip
    runs = [
        run("x", ["the red", "2", "yes", "blue"], seconds_per_question=0.5, peak_memory=2**30, parameters=7),
        run("y", ["red", "", "", "red"]),
    ]
    result = json.loads(json.dumps(compare(examples, runs, resamples=200), allow_nan=False))
    rows = by_name(result)
    assert list(rows) == ["x", "y", BLIND]
    for row, system in zip(result["systems"], runs, strict=False):
        expected = score(examples, system.answers) | {"empty_predictions": system.answers.count("")}
        assert {key: row[key] for key in expected} == expected
        low, high = row["interval"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert row["vqa_interval"] is None  # several annotators for one image alone
    assert rows["x"]["seconds_per_question"] == 0.5 and rows["x"]["parameters"] == 7 and "answers" not in rows["x"]
    assert rows[BLIND]["base_model_id"] is None and rows[BLIND].keys() == rows["x"].keys()
    assert (result["n"], result["images"]) == (4, 3)
    assert result["agreement"]["x"]["y"] == result["agreement"]["y"]["x"] == 0.25
    assert result["agreement"]["x"]["x"] == 1 and BLIND in result["agreement"]["x"]
    assert [row["row"] for row in result["disagreements"]] == [1, 2, 3]
    assert result["disagreements"][0] == {
        "row": 1, "image_name": "b.jpg", "question": "How many?", "answer": "Two", "said": {"x": "2", "y": ""},
    }  # fmt: skip
    assert [(row["a"], row["b"]) for row in result["differences"]] == [("x", "y"), ("x", BLIND), ("y", BLIND)]
    assert (
        result["differences"][0]["difference"] == pytest.approx(0) and not result["differences"][0]["more_than_noise"]
    )
    assert any("3 images" in note and "no difference" in note for note in result["notes"])


def test_vqa_accuracy_has_its_own_interval():
    examples = [example(row, str(row), ["red"] * 3 + ["blue"]) for row in range(10)]
    row = compare(examples, [run("x", ["red"] * 5 + ["blue"] * 5)], resamples=200)["systems"][0]
    low, high = row["vqa_interval"]
    assert low < row["vqa_accuracy"] < high and row["accuracy"] == 0.5


def test_a_metric_has_an_interval_without_being_named():
    examples = [example(row, str(row), ["yellow"]) for row in range(10)]
    row = compare(examples, [run("x", ["yellow"] * 5 + ["yelow"] * 5)], resamples=200)["systems"][0]
    low, high = row["anls_interval"]
    assert low < row["anls"] < high < 1


def test_a_table_without_answers_is_compared_all_the_same():
    examples = [example(row, str(row), ()) for row in range(3)]
    result = json.loads(json.dumps(compare(examples, [run("x", ["a", "b", ""]), run("y", ["b", "B", ""])])))
    assert [row["accuracy"] for row in result["systems"]] == [None, None]
    assert [row["interval"] for row in result["systems"]] == [None, None]
    assert [row["empty_predictions"] for row in result["systems"]] == [1, 1]
    assert result["differences"] == [
        {"a": "x", "b": "y", "difference": None, "interval": None, "p_value": None, "more_than_noise": False}
    ]
    assert result["agreement"]["x"]["y"] == pytest.approx(2 / 3)
    assert [row["row"] for row in result["disagreements"]] == [0]
    assert "no answers" in result["notes"][0]


def test_one_image_has_no_intervals():
    examples = [example(row) for row in range(4)]
    result = compare(examples, [run("x", ["red"] * 4), run("y", ["blue"] * 4)])
    assert [row["name"] for row in result["systems"]] == ["x", "y"]
    assert [row["accuracy"] for row in result["systems"]] == [1, 0]
    assert [row["interval"] for row in result["systems"]] == [None, None]
    difference = result["differences"][0]
    assert (difference["difference"], difference["p_value"], difference["more_than_noise"]) == (1, None, False)
    assert "one image" in result["notes"][0] and "blind" in result["notes"][1]


def test_nothing_to_compare():
    result = compare([], [run("x", []), run("y", [])])
    assert result["agreement"]["x"]["y"] is None and result["disagreements"] == [] and result["n"] == 0
    assert [row["name"] for row in compare(drawn(), [], resamples=10)["systems"]] == [BLIND]


@pytest.mark.parametrize("names", [("x", "x"), ("x", BLIND)])
def test_systems_need_names_of_their_own(names):
    with pytest.raises(ValueError, match="names of their own"):
        compare([example()], [run(name, ["red"]) for name in names])


@pytest.mark.parametrize("answers", [[], ["red", "blue"]])
def test_every_example_needs_one_answer(answers):
    with pytest.raises(ValueError, match=f"x: {len(answers)} answers for 1 examples"):
        compare([example()], [run("x", answers)])


# Noise


def test_the_interval_is_that_of_a_bootstrap_by_image():
    """Five questions an image, all right or all wrong: the interval is that of 40 images, not of 200 questions."""
    examples = drawn(40)
    right = set(map(str, range(28)))
    said = [item.answer if item.image.name in right else "nonsense" for item in examples]
    low, high = compare(examples, [run("x", said)])["systems"][0]["interval"]
    draws = np.random.default_rng(1).binomial(40, 28 / 40, 100_000) / 40
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.026)  # a step is 1 / 40


def test_differences_are_paired():
    """Where both fail on the same hard questions, a small difference stands out that two intervals would hide."""
    examples = drawn(200, 1)
    worse = answering(examples, 0.6, 1)
    better = [item.answer if item.row % 20 == 0 else text for item, text in zip(examples, worse, strict=True)]
    result = compare(examples, [run("worse", worse), run("better", better), run("same", worse)], resamples=2000)
    rows = by_name(result)
    found = {(row["a"], row["b"]): row for row in result["differences"]}
    assert rows["worse"]["interval"][1] > rows["better"]["interval"][0]
    pair = found["worse", "better"]
    assert pair["difference"] == pytest.approx(rows["worse"]["accuracy"] - rows["better"]["accuracy"])
    low, high = pair["interval"]
    assert low < pair["difference"] < high
    wrong = sum(a != b for a, b in zip(worse, better, strict=True))
    assert pair["p_value"] == pytest.approx(2 * 0.5**wrong, abs=0.01)  # the sign test, when all differ in one direction
    assert pair["more_than_noise"] == (high < 0 and pair["p_value"] < 0.05) and high <= 0
    assert found["worse", "same"]["p_value"] == 1 and not found["worse", "same"]["more_than_noise"]


@pytest.mark.parametrize(("images", "told"), [(5, False), (12, True)])
def test_a_handful_of_images_never_tells_more_than_noise(images, told):
    examples = drawn(images, 20)
    result = compare(examples, [run("x", [item.answer for item in examples]), run("y", ["no"] * len(examples))])
    pair = result["differences"][0]
    assert pair["interval"] == [1, 1] and pair["more_than_noise"] is told
    assert pair["p_value"] == pytest.approx(2 * 0.5**images, abs=0.01)
    assert any("without width" in note and "x, y" in note for note in result["notes"])


def test_equal_systems_are_rarely_told_apart():
    examples = drawn(60, 3)
    told = [
        compare(examples, [run("x", answering(examples, 0.5, 2 * seed)), run("y", answering(examples, 0.5, 2 * seed + 1))],
                resamples=300)["differences"][0]["more_than_noise"]
        for seed in range(12)
    ]  # fmt: skip
    assert sum(told) <= 2


def test_the_result_does_not_depend_on_the_order_of_rows():
    examples = drawn(30)
    said = answering(examples, 0.5, 0)
    order = random.Random(3).sample(range(len(examples)), len(examples))
    first = compare(examples, [run("x", said)], resamples=200)
    other = compare([examples[i] for i in order], [run("x", [said[i] for i in order])], resamples=200)
    assert first["systems"][0]["interval"] == other["systems"][0]["interval"]
    assert first["differences"] == other["differences"]
    assert first == compare(examples, [run("x", said)], resamples=200)
    assert first["systems"] != compare(examples, [run("x", said)], resamples=200, seed=1)["systems"]


# Blind


def test_blind_answers_come_from_other_images():
    # Each picture's own answer is its commonest; the others' is red.
    examples = [example(row, str(row % 10), ["red" if row % 2 else f"own {row % 10}"]) for row in range(40)]
    said = blind_answers(examples)
    assert all(text != f"own {item.image.name}" for item, text in zip(examples, said, strict=True))
    assert blind_answers(examples[::-1])[::-1] == said == blind_answers(examples)


def test_few_images_are_left_out_one_by_one():
    examples = [example(0, "a", ["red"]), example(1, "b", ["blue"]), example(2, "c", ["blue"]), example(3, "d", ())]
    assert blind_answers(examples) == ["blue", "red", "red", "blue"]  # a tie goes to what sorts first by content
    assert blind_answers(examples[:2]) == ["blue", "red"]


@pytest.mark.parametrize("examples", [[], [example()], [example(0, "a"), example(1, "b", ())]])
def test_blind_needs_two_images_with_answers(examples):
    assert blind_answers(examples) is None
