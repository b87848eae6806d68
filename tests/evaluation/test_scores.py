"""Scores on a handful of rows worked out by hand and on real captions, and swapped images."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest

from blip2vqa.data.captions import group_by_image, load_captions
from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.evaluation.bertscore import bertscore_scorer
from blip2vqa.evaluation.blind import BlindCaption
from blip2vqa.evaluation.scores import score, swap_images
from helpers.paths import DATA
from helpers.scored_rows import caption_scores

score_captions = partial(score, task="caption")


def example(question="What color is it?", answers=("red",), image="a", kind="color", row=0) -> Example:
    return Example(row, ImageSource(image), f"{image}.jpg", f"digest-{image}", question, tuple(answers), kind, {})


def caption(name: str, *captions: str) -> Example:
    return Example(2, None, name, f"digest of {name}", "", captions, "caption", {})


# Swapped images


def test_swapped_images_differ_in_content_and_go_by_image():
    # "a" and "copy" are one picture under two names.
    examples = [example(image=name, row=row) for row, name in enumerate("aabbbcde")]
    copy = example(image="copy", row=8)
    object.__setattr__(copy, "digest", "digest-a")
    examples.append(copy)
    for seed in range(20):
        swapped = swap_images(examples, seed)
        pairs = list(zip(examples, swapped, strict=True))
        assert all(old.digest != new.digest for old, new in pairs)
        assert all((new.row, new.question, new.answers) == (old.row, old.question, old.answers) for old, new in pairs)
        assert all(
            new.image_name == f"{new.image.name}.jpg" and new.digest.endswith(new.image.name) for _, new in pairs
        )
        partner = {old.digest: new.digest for old, new in pairs}
        assert all(partner[old.digest] == new.digest for old, new in pairs)
        assert sorted(partner.values()) == sorted(partner)


def test_swapping_is_repeatable_and_does_not_depend_on_the_order_of_rows():
    examples = [example(image=str(number), row=number) for number in range(12)]
    first, again, other = swap_images(examples, 1), swap_images(examples, 1), swap_images(examples, 2)
    assert first == again != other
    assert sorted(swap_images(examples[::-1], 1), key=lambda item: item.row) == first


def test_one_distinct_image_cannot_be_swapped():
    assert swap_images([example(row=0), example(row=1)], 0) is None
    assert swap_images([], 0) is None


# Scores


def test_score_by_hand():
    examples = [
        example(answers=["red"]),
        example(answers=["Two"], kind="count"),
        example(answers=[]),
        example(answers=["yes"] * 4, kind="yes/no"),
        example(answers=["a dog"] * 3 + ["cat"] * 2, kind="animal"),
        example(answers=["blue"]),
    ]
    result = score(examples, ["the red", "2", "anything", "no", "Dog", ""])
    by_type = result.pop("by_question_type")
    # dog, among ["dog"] * 3 + ["cat"] * 2: three times 2 / 3, twice 1
    dog = (3 * 2 / 3 + 2 * 1) / 5
    assert result == {
        "accuracy": pytest.approx(3 / 5), "n": 5, "n_without_answer": 1, "empty_predictions": 1,
        "vqa_accuracy": pytest.approx(dog / 2), "n_several_answers": 2,
        "anls": pytest.approx(0.6 / 5),  # "Dog" for "a dog": two letters of five are missing
    }  # fmt: skip
    assert by_type == {
        "yes/no": {"accuracy": 0, "n": 1, "vqa_accuracy": 0},
        "count": {"accuracy": 1, "n": 1},
        "color": {"accuracy": 0.5, "n": 2},
        "animal": {"accuracy": 1, "n": 1, "vqa_accuracy": pytest.approx(dog)},
    }
    assert list(by_type) == ["yes/no", "count", "color", "animal"]


def test_score_leaves_out_what_does_not_apply():
    result = score([example()], ["red"])
    assert result.keys() == {"accuracy", "n", "n_without_answer", "empty_predictions", "anls", "by_question_type"}
    nothing = score([example(answers=())], ["red"])
    assert (nothing["accuracy"], nothing["n"], nothing["by_question_type"]) == (None, 0, {})
    with pytest.raises(ValueError, match="2 predictions for 1 examples"):
        score([example()], ["red", "blue"])


def test_score_with_bertscore_names_the_scorer():
    class Stub:
        def __len__(self):
            return 0  # as an evaluate.Metric that stores nothing

        def compute(self, predictions, references):
            assert (predictions, references) == (["crimson"], ["red"])
            return {"f1": 0.5, "precision": 0.4, "recall": 0.6, "scorer": "stub_L1", "n": 1}

    result = score([example(), example(answers=())], ["crimson", "x"], bertscore=Stub())
    assert {key: value for key, value in result.items() if key.startswith("bertscore")} == {
        "bertscore_f1": 0.5, "bertscore_precision": 0.4, "bertscore_recall": 0.6, "bertscore_scorer": "stub_L1",
    }  # fmt: skip


# Captions


def test_nothing_is_printed_and_java_is_not_asked_for(capfd, monkeypatch):
    monkeypatch.setenv("PATH", "")
    score([caption("a", "a b c d"), caption("b", "y")], ["a b c d", "x"], task="caption")
    scorers = "import pycocoevalcap.cider.cider, pycocoevalcap.bleu.bleu"
    subprocess.run([sys.executable, "-c", scorers], check=True)  # their own first import
    assert capfd.readouterr() == ("", "")
    assert not [name for name in sys.modules if re.search(r"pycocoevalcap\.(tokenizer|meteor|spice|eval)", name)]


def test_scores_of_examples():
    examples = [
        caption("a", "a man rides a horse", "someone on a horse"), caption("b", "two small dogs play ball", " "),
        caption("c"), caption("d", " "),
    ]  # fmt: skip
    result = score_captions(examples, ["A man rides a horse.", "", "left out", "left out"])
    references = [["a man rides a horse", "someone on a horse"], ["two small dogs play ball"]]
    assert result == {
        "cider": caption_scores("cider", ["a man rides a horse", ""], references).value,
        "bleu4": caption_scores("bleu4", ["a man rides a horse", ""], references).value,
        "n": 2,
        "n_without_answer": 2,
        "empty_predictions": 1,
        "mean_words": 2.5,
    }
    assert result["cider"] > 1 and 0.3 < result["bleu4"] < 0.9


def test_scores_of_nothing():
    nothing = {"cider": None, "bleu4": None, "n": 0, "empty_predictions": 0, "mean_words": None}
    assert score_captions([], []) == nothing | {"n_without_answer": 0}
    assert score_captions([caption("a")], ["x"]) == nothing | {"n_without_answer": 1}
    with pytest.raises(ValueError, match="0 predictions for 1 examples"):
        score_captions([caption("a", "x")], [])


def test_bertscore_is_of_the_nearest_reference():
    scorer = bertscore_scorer("minilm")
    examples = [
        caption("a", "a stock market report", "a red dog runs"),
        caption("b", "two birds", "pasta"),
        caption("c"),
    ]
    predictions = ["a red dog runs", "spaghetti", "x"]
    result = score_captions(examples, predictions, bertscore=scorer)
    nearest = scorer.compute(predictions=predictions[:2], references=["a red dog runs", "pasta"])
    for key in ("f1", "precision", "recall"):
        assert result[f"bertscore_{key}"] == pytest.approx(nearest[key], abs=1e-5)
    assert result["bertscore_scorer"] == scorer.scorer
    assert score_captions([], [], bertscore=scorer)["bertscore_f1"] is None


# Real data, where it is at hand

FOLDER = DATA / "captions-tiny-coco"


@pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no real captions at {FOLDER}; set BLIP2VQA_DATA to the folder above it"
)
def test_people_score_as_published_and_swapped_or_blind_captions_hardly():
    sides = [
        load_captions(str(FOLDER / f"{side}.csv"), str(FOLDER / "images"), progress=False) for side in ("train", "val")
    ]
    train, val = (group_by_image(examples) for examples, _ in sides)
    results = []
    for left_out in range(5):
        said = [image.answers[left_out] for image in val]
        others = [replace(image, answers=image.answers[:left_out] + image.answers[left_out + 1 :]) for image in val]
        right, swapped = score_captions(others, said), score_captions(others, said[1:] + said[:1])
        assert swapped["cider"] < 0.25 * right["cider"] and swapped["bleu4"] < 0.35 * right["bleu4"]
        results.append(right)
    # pycocoevalcap with its PTBTokenizer (Java) gave the same
    assert [result["cider"] for result in results[:2]] == pytest.approx([0.9297180364945388, 0.8084211433279163])
    assert [result["bleu4"] for result in results[:2]] == pytest.approx([0.20106831623482735, 0.14559482908100463])
    # A person's caption against others' of COCO: CIDEr 0.85, BLEU-4 0.22 (https://arxiv.org/abs/1504.00325, c5)
    assert 0.6 < sum(result["cider"] for result in results) / 5 < 1.1
    assert 0.1 < sum(result["bleu4"] for result in results) / 5 < 0.3
    blind = score_captions(val, BlindCaption(train).predict(val))
    assert blind["cider"] < 0.2
