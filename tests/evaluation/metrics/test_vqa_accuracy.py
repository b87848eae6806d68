"""VQA accuracy against values worked out by hand and against the official formula written out plainly."""

import gzip
import json

import pytest

from blip2vqa.data.answers import normalize_answer, vqa_score
from blip2vqa.evaluation.metrics import METRICS
from helpers.paths import DATA
from helpers.scored_rows import answer_scores, question_rows

FOLDER = DATA / "vqav2-10ann"


def vqa(prediction: str, answers: list[str]) -> float:
    return answer_scores("vqa_accuracy", [prediction], [answers]).scores[0]


@pytest.mark.parametrize(
    ("matches", "expected"),
    # m of ten matched: m times min(1, (m - 1) / 3) and 10 - m times min(1, m / 3), over ten.
    [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)],
)
def test_vqa_accuracy_of_ten_annotators(matches, expected):
    assert vqa("red", ["red"] * matches + ["blue"] * (10 - matches)) == pytest.approx(expected)


def test_where_annotators_differ_both_sides_are_normalised():
    answers = ["Two.", "2", "two dogs", "2 Dogs", *["cats"] * 6]
    assert vqa("two", answers) == pytest.approx(0.6)
    assert vqa("The 2 dogs!", answers) == pytest.approx(0.6)


def test_where_annotators_agree_neither_side_is_normalised_unlike_in_lavis():
    assert vqa("yes", ["yes"] * 10) == 1
    assert vqa(" yes\n", ["yes"] * 10) == 1  # blanks around it go in any case
    # LAVIS normalises the prediction always, and would give 1 for the first two and 0 for the last two.
    assert vqa("Yes", ["yes"] * 10) == 0
    assert vqa("the dog", ["dog"] * 10) == 0
    assert vqa("the dog", ["the dog"] * 10) == 1
    assert vqa("two", ["two"] * 10) == 1


def test_where_annotators_differ_articles_and_digits_of_theirs_are_normalised_unlike_in_lavis():
    # LAVIS strips only punctuation from the annotators' answers, and would give 0: "2" is not "two".
    assert vqa("two", ["two"] * 9 + ["three"]) == 1


def test_fewer_than_ten_annotators():
    assert vqa("red", ["red"] * 5) == 1
    assert vqa("red", ["red", "red", "blue", "green", "pink"]) == pytest.approx((2 * 1 / 3 + 3 * 2 / 3) / 5)
    assert [vqa("red", ["red"] * n) for n in (2, 3)] == [1, 1]  # as many as there are others
    assert vqa("red", ["red", "blue"]) == pytest.approx(0.5)
    assert vqa("The Red", ["red."]) == 1
    assert vqa("red", ["blue"]) == 0
    with pytest.raises(ValueError, match="at least one answer"):
        vqa_score("red", [])


def test_an_empty_prediction_is_wrong_even_where_an_answer_is_only_an_article():
    assert answer_scores("vqa_accuracy", ["", "a"], [["a", "the", "an", "a", "b"]] * 2).scores == [0, 1]


def official_score(prediction: str, annotation: list[str]) -> float:
    """vqaEval.py's loop, line by line, over dicts as there."""
    items = [
        {"answer": text.replace("\n", " ").replace("\t", " ").strip(), "answer_id": i}
        for i, text in enumerate(annotation)
    ]
    prediction = prediction.replace("\n", " ").replace("\t", " ").strip()
    if len({item["answer"] for item in items}) > 1:
        for item in items:
            item["answer"] = normalize_answer(item["answer"])
        prediction = normalize_answer(prediction)
    accuracies = []
    for left_out in items:
        others = [item for item in items if item != left_out]
        matching = [item for item in others if item["answer"] == prediction]
        accuracies.append(min(1, float(len(matching)) / 3))
    return float(sum(accuracies)) / len(accuracies)


@pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"real annotations are not at {FOLDER} (BLIP2VQA_DATA names the folder)"
)
def test_vqa_accuracy_equals_the_official_loop_on_real_annotations():
    annotations = json.loads((FOLDER / "annotations.json").read_text())["annotations"]
    compressed = FOLDER / "nlp1_60k" / "vqa_annotations_valid.json.gz"
    if compressed.is_file():
        annotations += json.loads(gzip.decompress(compressed.read_bytes()))["annotations"][:1500]
    predictions, references = [], []
    for annotation in annotations:
        answers = [item["answer"] for item in annotation["answers"]]
        for text in dict.fromkeys([*answers, answers[0].upper(), f"the {answers[-1]}.", "yes", "2"]):
            if text.strip():
                predictions.append(text)
                references.append(answers)
    result = answer_scores("vqa_accuracy", predictions, references)
    expected = [official_score(*pair) for pair in zip(predictions, references, strict=True)]
    assert result.scores == pytest.approx(expected)
    assert 0.2 < result.value < 0.8  # the cases are neither all right nor all wrong


def test_rows_with_several_annotators_alone_are_scored():
    rows = question_rows(["red", "red"], [["red"], ["red", "blue"]])
    assert METRICS["vqa_accuracy"].rows_of(rows) == rows[1:]
    assert METRICS["accuracy"].rows_of(rows) == rows
