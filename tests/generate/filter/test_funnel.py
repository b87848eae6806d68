"""The account of the filters, and the counts of what is left."""

import json
import random
from dataclasses import replace

import pandas as pd
import pytest

from blip2vqa.generate.filter.funnel import Funnel, summarize
from blip2vqa.generate.outputs import as_row, split_of
from helpers.asked_questions import asked, funnel_of_four


def test_the_funnel_keeps_account():
    funnel = funnel_of_four()
    assert [(question.item.image_name, question.verdicts) for question in funnel.left] == [
        ("a.jpg", {"single word": "kept", "listing": "kept"}),
        ("b.jpg", {"single word": "kept", "listing": "kept"}),
    ]
    assert [(question.answer, question.verdicts) for question in funnel.dropped] == [
        ("dark red", {"single word": "more than one word"}),  # whole, not cut
        ("lamp", {"single word": "kept", "listing": "the catalogue says otherwise"}),
    ]
    funnel.pass_through("form", ["why", "why"])
    funnel.pass_through("blind", [])
    assert len(funnel.dropped) == 4 and not funnel.left
    assert funnel.steps == [
        {"step": "single word", "dropped": 1, "left": 3, "reasons": {"more than one word": 1}},
        {"step": "listing", "dropped": 1, "left": 2, "reasons": {"the catalogue says otherwise": 1}},
        {"step": "form", "dropped": 2, "left": 0, "reasons": {"why": 2}},
        {"step": "blind", "dropped": 0, "left": 0, "reasons": {}},
    ]
    funnel = Funnel([asked(str(number)) for number in range(4)])
    funnel.pass_through("form", ["rare", "common", None, "common"])
    assert list(funnel.steps[0]["reasons"].items()) == [("common", 2), ("rare", 1)], "the commonest first"


@pytest.mark.parametrize("reasons", [[None], [None, None, None]])
def test_a_filter_must_judge_each_question(reasons):
    with pytest.raises(ValueError):
        Funnel([asked(), asked("b.jpg")]).pass_through("form", reasons)


def test_the_summary_counts_what_the_rows_hold():
    rng = random.Random(0)
    items = [asked(f"{number}.jpg", group=number // 3, item_id=f"B{number // 2}").item for number in range(40)]
    items = [replace(item, product_type=rng.choice(["SHOES", "RUG", "LAMP"])) for item in items]
    kept = [
        replace(asked(answer=rng.choice("abc"), kind=rng.choice(["color", "color", "shape"])), item=item)
        for item in items[:35] for _ in range(rng.randint(1, 4))
    ]  # fmt: skip
    sides, funnel = split_of(kept, 0.2, 0.2, 1), Funnel(kept)
    funnel.pass_through("form", [None] * len(kept))
    summary = summarize(kept, sides, funnel, {"seed": 42})
    frame = pd.DataFrame(as_row(question) | {"split": sides[question.item.group]} for question in kept)
    assert summary["counts"] == {"pictures": 35, "questions": len(kept), "products": 18}
    for split, rows in frame.groupby("split"):
        assert summary["splits"][split] == {
            "questions": len(rows), "pictures": rows.image_name.nunique(), "products": rows.item_id.nunique(),
        }  # fmt: skip
    assert list(summary["splits"]) == ["train", "val", "test"] and frame.split.nunique() == 3
    assert list(summary["question_types"]) == ["color", "shape"], "the commonest first"
    for kind, rows in frame.groupby("question_type"):
        counts = rows.answer.value_counts()
        assert summary["question_types"][kind] == {"n": len(rows), "answers": counts.to_dict()}
        assert list(summary["question_types"][kind]["answers"].values()) == sorted(counts, reverse=True)
    by_type = frame.drop_duplicates("image_name").product_type.value_counts()
    assert summary["product_types"] == by_type.to_dict()
    assert list(summary["product_types"].values()) == sorted(by_type, reverse=True)
    assert summary["funnel"] == funnel.steps and summary["seed"] == 42
    assert json.loads(json.dumps(summary)) == summary, "plain JSON types"


def test_a_side_without_questions_is_counted_as_empty():
    kept = [asked()]
    summary = summarize(kept, {0: "train"}, Funnel(kept), {})
    assert summary["splits"]["val"] == summary["splits"]["test"] == {"questions": 0, "pictures": 0, "products": 0}
