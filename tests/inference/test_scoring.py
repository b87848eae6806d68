"""Predictions of any system, scored against a table without a model or pictures."""

import json

import pandas as pd
import pytest

from blip2vqa.config.inference import InferenceArguments
from blip2vqa.inference import model_spec
from blip2vqa.inference.scoring import score_table


def arguments(table, predictions, **more) -> InferenceArguments:
    given = {"csv_path": str(table), "score": str(predictions), "bertscore_model": "none"}
    return InferenceArguments(**given | more)


def test_scoring_needs_neither_model_nor_images(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(model_spec, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    table = pd.read_csv(drawn[1], dtype=str)
    table["generated_answer"] = table["answer"]
    table.loc[0, "generated_answer"] = "purple"
    table.loc[1, "generated_answer"] = ""
    table.to_csv(tmp_path / "said.csv", index=False)
    metrics = score_table(arguments(drawn[1], tmp_path / "said.csv"))["predictions"]
    assert metrics["accuracy"] == pytest.approx(34 / 36)
    assert metrics["empty_predictions"] == 1


def test_official_results_are_scored_against_ten_annotators(tmp_path):
    questions = [
        {"image_id": 1, "question": "Red?", "question_id": 10},
        {"image_id": 1, "question": "Who?", "question_id": 11},
    ]
    answers = [["yes"] * 10, ["man"] * 2 + ["boy"] * 8]
    annotations = [
        {"question_id": 10 + i, "multiple_choice_answer": a[-1], "answers": [{"answer": x} for x in a]}
        for i, a in enumerate(answers)
    ]
    (tmp_path / "q.json").write_text(json.dumps({"data_subtype": "val2014", "questions": questions}))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations}))
    said = [{"question_id": 11, "answer": "man"}, {"question_id": 10, "answer": "yes"}]
    (tmp_path / "said.json").write_text(json.dumps(said))
    args = arguments(tmp_path / "q.json", tmp_path / "said.json", annotations_path=str(tmp_path / "a.json"))
    metrics = score_table(args)["predictions"]
    assert metrics["accuracy"] == 0.5
    # "man": of the ten leave-one-out groups eight hold both, two hold one of them.
    assert metrics["vqa_accuracy"] == pytest.approx((1 + (8 * 2 / 3 + 2 * 1 / 3) / 10) / 2)


def test_types_alone_are_scored(drawn, tmp_path):
    predictions = tmp_path / "said.csv"
    table = pd.read_csv(drawn[1], dtype=str)
    table.assign(generated_answer=table["answer"]).to_csv(predictions, index=False)
    args = arguments(drawn[1], predictions, question_types="count")
    assert score_table(args)["predictions"]["n"] == table["question"].str.startswith("How many").sum()


def test_scores_of_a_semicolon_table_are_written(drawn, tmp_path):
    table = pd.read_csv(drawn[1], dtype=str).assign(generated_answer="red")
    table.to_csv(tmp_path / "said.csv", index=False, sep=";")
    metrics = score_table(arguments(drawn[1], tmp_path / "said.csv"))
    assert json.loads((tmp_path / "said.score.json").read_text()) == metrics


def test_scores_need_no_questions(tmp_path):
    (tmp_path / "said.csv").write_text("image,answer,prediction\na.png,red,red\nb.png,two,one\n")
    metrics = score_table(arguments(tmp_path / "said.csv", tmp_path / "said.csv"))["predictions"]
    assert metrics["accuracy"] == 0.5 and list(metrics["by_question_type"]) == ["other"]
