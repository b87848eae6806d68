"""Scores on a handful of rows worked out by hand, the blind baseline, and swapped images."""

import pytest

from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.evaluation.scores import BlindBaseline, score, swap_images


def example(question="What color is it?", answers=("red",), image="a", kind="color", row=0) -> Example:
    return Example(row, ImageSource(image), f"{image}.jpg", f"digest-{image}", question, tuple(answers), kind, {})


def train(*pairs: tuple[str, str]) -> list[Example]:
    return [example(question, (answer,)) for question, answer in pairs]


# Blind baseline


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
    assert result.keys() == {"accuracy", "n", "n_without_answer", "empty_predictions", "by_question_type"}
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
