"""Caption metrics against values worked out by hand and against the COCO evaluation's own, Java tokenizer included."""

import importlib
import math
import random
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from blip2vqa.data.captions import group_by_image, load_captions
from blip2vqa.data.examples import Example
from blip2vqa.evaluation import caption_metrics
from blip2vqa.evaluation.caption_metrics import BLEU4, BlindCaption, CIDEr, score_captions, tokenize
from blip2vqa.evaluation.metrics import bertscore_scorer
from helpers.paths import DATA


def example(name: str, *captions: str) -> Example:
    return Example(2, None, name, f"digest of {name}", "", captions, "caption", {})


def cider(predictions: list[str], references: list[list[str]]) -> list[float]:
    return CIDEr().compute(predictions=predictions, references=references)["scores"]


def bleu4(predictions: list[str], references: list[list[str]]) -> float:
    return BLEU4().compute(predictions=predictions, references=references)["bleu4"]


# Words


@pytest.mark.parametrize(
    ("caption", "words"),
    # What PTBTokenizer gives, lowercased and without punctuation, as pycocoevalcap calls it
    [
        ("The man's dog, that DON'T bark!", "the man 's dog that do n't bark"),
        ("It’s a red-haired man’s T-shirt; won't fit...", "it 's a red-haired man 's t-shirt wo n't fit"),
        ('At 10:30 o\'clock -- 2,000 and/or 4.5 "small" cars.', "at 10:30 o'clock 2,000 and/or 4.5 small cars"),
        ("Schöne Straße — größer… ‘so’ “so”", "schöne straße größer so so"),
        ("a dog's ' bone mid- word", "a dog 's bone mid word"),
        ("हिन्दी में 中文 text", "हिन्दी में 中文 text"),
        ("don't.Stop one,two", "do n't stop one two"),
        (" \n", ""),
        ("...", ""),
    ],
)
def test_words_are_those_of_the_coco_evaluation(caption, words):
    assert " ".join(tokenize(caption)) == words


def test_words_that_differ_from_the_coco_evaluation():
    assert tokenize("U.S. cannot & (50%) 🐶") == ["u", "s", "cannot", "50", "🐶"]
    assert tokenize("cafe\u0301") == tokenize("Café")


# CIDEr


def test_cider_by_hand():
    # Two rows, every n-gram of the references in one of them: each weighs log 2 for each time it occurs.
    # Row 1: one and two words agree, three and four there are none: (1 + 1 + 0 + 0) / 4 * 10.
    # Row 2: of two words one agrees, cosine 1/2, and no pair: (1/2 + 0 + 0 + 0) / 4 * 10.
    result = CIDEr().compute(predictions=["A b.", "c e"], references=[["a b"], ["c d"]])
    assert result["scores"] == pytest.approx([5, 1.25])
    assert result["cider"] == pytest.approx(3.125)
    assert (result["n"], result["empty_predictions"]) == (2, 0)


def test_cider_is_the_mean_over_references_with_a_penalty_for_length():
    references = [["a b c d e", "f g h i j"], ["k"]]
    assert cider(["a b c d e", "x"], references)[0] == pytest.approx(10 / 2)
    # Its length is the number of word pairs: 5 against 3 is 2 too many, exp(-2² / (2 * 6²)). The words not in any
    # reference weigh as much as those in one: cosines 4/√24, 3/√15, 2/√8 and 1/√3.
    cosines = 4 / math.sqrt(24) + 3 / math.sqrt(15) + 2 / math.sqrt(8) + 1 / math.sqrt(3)
    expected = cosines / 4 * 10 * math.exp(-4 / 72)
    assert cider(["a b c d x y", "x"], [["a b c d"], ["k"]])[0] == pytest.approx(expected)


def test_words_of_every_image_count_for_nothing():
    assert cider(["a", "a"], [["a dog"], ["a cat"]]) == [0, 0]
    # One word of one agrees; no pair against one is a penalty of exp(-1² / (2 * 6²)).
    assert cider(["dog", "cat"], [["a dog"], ["a cat"]]) == pytest.approx([2.5 * math.exp(-1 / 72)] * 2)


def test_perfect_captions_and_their_scale():
    captions = ["a man rides a horse", "two small dogs play ball", "the old red car stops"]
    references = [[caption] for caption in captions]
    result = CIDEr().compute(predictions=captions, references=references)
    assert result["cider"] == pytest.approx(10)
    assert bleu4(captions, references) == pytest.approx(1)
    assert cider(captions[1:] + captions[:1], references) == pytest.approx([0, 0, 0], abs=1e-9)


def test_of_a_single_image_cider_is_zero_by_construction():
    assert CIDEr().compute(predictions=["a red dog runs"], references=[["a red dog runs"]])["cider"] == 0
    assert bleu4(["a red dog runs"], [["a red dog runs"]]) == pytest.approx(1)


# BLEU-4


def test_bleu_by_hand():
    assert bleu4(["a b c d e"], [["a b c d f"]]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu4(["a b c d"], [["A, b, c, d e f."]]) == pytest.approx(math.exp(1 - 6 / 4))
    # No penalty where a reference is as long; counts are clipped at the most of any one reference.
    assert bleu4(["a b c d"], [["a b c d e f", "x b c d"]]) == pytest.approx(1)
    # Over all rows together: 4-grams 1 + 0 of 2, 3-grams 2 + 0 of 4, and so on
    assert bleu4(["a b c d", "w x y z"], [["a b c d"], ["q r s t"]]) == pytest.approx(0.5)


def test_bleu_without_a_run_of_four_words_is_near_zero():
    assert bleu4(["a dog"], [["a dog"]]) < 0.04
    assert bleu4(["a b c x"], [["a b c d"]]) < 0.01


# Both


def test_empty_predictions_score_zero_and_are_counted():
    references = [["a red dog runs"], ["a cat"], ["two birds"]]
    predictions = ["", " \n", "two birds"]
    result = CIDEr().compute(predictions=predictions, references=references)
    assert result["scores"][:2] == [0, 0] and result["scores"][2] > 0
    assert result["empty_predictions"] == 2
    assert bleu4(["", ""], [["a red dog runs"], ["a cat"]]) == 0
    assert cider(["...", "x"], [["a dog"], ["..."]]) == [0, 0]


def test_references_without_a_word_are_no_error():
    assert cider(["a", "b"], [["..."], ["!"]]) == [0, 0]
    assert bleu4(["a", "b"], [["..."], ["!"]]) == pytest.approx(0, abs=1e-3)


def test_no_rows_give_no_score_and_wrong_rows_raise():
    assert CIDEr().compute(predictions=[], references=[])["cider"] is None
    assert BLEU4().compute(predictions=[], references=[])["bleu4"] is None
    for metric in (CIDEr(), BLEU4()):
        with pytest.raises(ValueError, match="at least one reference"):
            metric.compute(predictions=["a", "b"], references=[["a"], []])
        with pytest.raises(ValueError, match="Mismatch"):
            metric.compute(predictions=["a"], references=[["a"], ["b"]])


def test_nothing_is_printed_and_java_is_not_asked_for(capfd, monkeypatch):
    monkeypatch.setenv("PATH", "")
    importlib.reload(caption_metrics)
    for metric in (caption_metrics.CIDEr(), caption_metrics.BLEU4()):
        metric.compute(predictions=["a b c d", "x"], references=[["a b c d"], ["y"]])
    scorers = "import pycocoevalcap.cider.cider, pycocoevalcap.bleu.bleu"
    subprocess.run([sys.executable, "-c", scorers], check=True)  # their own first import
    assert capfd.readouterr() == ("", "")
    assert not [name for name in sys.modules if re.search(r"pycocoevalcap\.(tokenizer|meteor|spice|eval)", name)]


# Captions of a table


def test_scores_of_examples():
    examples = [
        example("a", "a man rides a horse", "someone on a horse"), example("b", "two small dogs play ball", " "),
        example("c"), example("d", " "),
    ]  # fmt: skip
    result = score_captions(examples, ["A man rides a horse.", "", "left out", "left out"])
    references = [["a man rides a horse", "someone on a horse"], ["two small dogs play ball"]]
    assert result == {
        "cider": CIDEr().compute(predictions=["a man rides a horse", ""], references=references)["cider"],
        "bleu4": bleu4(["a man rides a horse", ""], references),
        "n": 2,
        "n_without_answer": 2,
        "empty_predictions": 1,
        "mean_words": 2.5,
    }
    assert result["cider"] > 1 and 0.3 < result["bleu4"] < 0.9


def test_scores_of_nothing():
    nothing = {"cider": None, "bleu4": None, "n": 0, "empty_predictions": 0, "mean_words": None}
    assert score_captions([], []) == nothing | {"n_without_answer": 0}
    assert score_captions([example("a")], ["x"]) == nothing | {"n_without_answer": 1}
    with pytest.raises(ValueError, match="0 predictions for 1 examples"):
        score_captions([example("a", "x")], [])


def test_bertscore_is_of_the_nearest_reference():
    scorer = bertscore_scorer("minilm")
    examples = [
        example("a", "a stock market report", "a red dog runs"),
        example("b", "two birds", "pasta"),
        example("c"),
    ]
    predictions = ["a red dog runs", "spaghetti", "x"]
    result = score_captions(examples, predictions, bertscore=scorer)
    nearest = scorer.compute(predictions=predictions[:2], references=["a red dog runs", "pasta"])
    for key in ("f1", "precision", "recall"):
        assert result[f"bertscore_{key}"] == pytest.approx(nearest[key], abs=1e-5)
    assert result["bertscore_scorer"] == scorer.scorer
    assert score_captions([], [], bertscore=scorer)["bertscore_f1"] is None


# Without the image


def test_the_blind_caption_is_the_one_most_like_those_of_other_images():
    train = [
        example("a", "a dog runs", "something else altogether"), example("b", "the dog runs home"),
        example("c", "a dog runs far"), example("d", "blue boats"), example("e"),
        # Alike among themselves, but of one image
        example("f", *["some green apples lie in a bowl"] * 5),
    ]  # fmt: skip
    blind = BlindCaption(train)
    assert blind.caption == "a dog runs"
    assert blind.predict(train[:2]) == ["a dog runs"] * 2
    assert BlindCaption(random.Random(1).sample(train, len(train))).caption == "a dog runs"


def test_the_blind_caption_is_near_the_best_by_comparing_each_with_each(monkeypatch):
    words = [random.Random(seed).choices("abcdefgh", k=6) for seed in range(60)]
    train = [example(str(n // 2), " ".join(caption)) for n, caption in enumerate(words)]
    images = [list(one.answers) for one in group_by_image(train)]
    best = max((sum(cider([caption] * 30, images)), caption) for row in images for caption in row)
    # The metric compares with the own image too, clips, and punishes length: that makes little difference.
    assert sum(cider([BlindCaption(train).caption] * 30, images)) > 0.9 * best[0]
    monkeypatch.setattr(caption_metrics, "SAMPLE_IMAGES", 5)
    assert BlindCaption(train).caption == BlindCaption(train[::-1]).caption


def test_blind_captions_of_very_little():
    assert BlindCaption([example("a", "b", "a")]).caption == "a"
    assert BlindCaption([example("a", "same"), example("b", "same")]).caption == "same"
    assert BlindCaption([example("a", "...")]).caption == "..."
    with pytest.raises(ValueError, match="at least one training example with a caption"):
        BlindCaption([example("a"), example("b", " ")])


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
