"""Answers with a calibrated probability, those not sure enough left out, and where there can be no probability."""

import math

import pandas as pd
import pytest

from blip2vqa import load
from blip2vqa.config.common import FeatureArguments
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.inference import answering, generation, model_spec
from blip2vqa.reporting.tables import print_score_table
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter

CALIBRATION = {"slope": 0.5, "intercept": 0.3}


@pytest.fixture(scope="module")
def adapters(tiny_opt, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "sure": str(
            random_adapter(tiny_opt, folder / "sure", 1, calibration=CALIBRATION, decoding={"max_new_tokens": 1})
        ),
        "plain": str(random_adapter(tiny_opt, folder / "plain", 2)),
    }


@pytest.fixture
def answer(drawn, tmp_path):
    def answer(name: str, *adapters: str, **changes) -> tuple[pd.DataFrame, dict]:
        out = tmp_path / f"{name}.csv"
        given = {"csv_path": str(drawn[1]), "image_dir": str(drawn[0]), "lora_model_path": list(adapters) or None}
        common = {"output_path": str(out), "dtype": "float32", "bertscore_model": "none", "batch_size": 8}
        metrics = answering.answer_table(InferenceArguments(**given | common | changes), FeatureArguments())
        return pd.read_csv(out, dtype=str, keep_default_na=False), metrics

    return answer


def by_hand(confidence: str) -> float:
    odds = math.log(float(confidence) / (1 - float(confidence)))
    return 1 / (1 + math.exp(-(0.5 * odds + 0.3)))


def test_probabilities_stand_beside_confidences(answer, adapters):
    table, metrics = answer("all", adapters["sure"])
    columns = list(table)
    assert columns[columns.index("confidence") :] == ["confidence", "probability_right", "status"]
    for confidence, probability in zip(table["confidence"], table["probability_right"], strict=True):
        assert float(probability) == pytest.approx(by_hand(confidence), rel=0.02, abs=6e-5)  # of six digits' rounding
    assert set(metrics) == {"adapter"}


def test_what_is_not_sure_is_left_out_and_scored_apart(answer, adapters, tmp_path, capsys):
    whole, _ = answer("all", adapters["sure"])
    limit = whole["probability_right"].astype(float).median() + 1e-6
    table, metrics = answer("some", adapters["sure"], min_probability=limit)
    kept = table["probability_right"].astype(float) >= limit
    assert 0 < kept.sum() < len(table)
    assert set(table["status"][kept]) == {"ok"} and set(table["status"][~kept]) == {"unsure"}
    assert set(table["generated_answer"][~kept]) == {""}
    assert table["generated_answer"][kept].tolist() == whole["generated_answer"][kept].tolist()
    assert metrics["answered"]["n"] == kept.sum() and metrics["adapter"]["n"] == len(table)
    capsys.readouterr()
    print_score_table(metrics, "Score")
    left_out = len(table) - kept.sum()
    assert f"Left out, not sure enough: {left_out} of {len(table)}, which count as wrong" in capsys.readouterr().out
    page = (tmp_path / "some.report.html").read_text()
    assert f"of {len(table)} questions were answered, and " in page and "of these, the sure answers" in page
    assert page.count(" data-k=u ") == len(table) - kept.sum() and ">left out: not sure enough (" in page


def test_interrupted_and_rerun_it_leaves_out_the_same(answer, adapters, monkeypatch):
    whole, _ = answer("whole", adapters["sure"], min_probability=0.1)
    calls, real = [], generation.answer_with_kv_cache

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(generation, "answer_with_kv_cache", stop)
    with pytest.raises(KeyboardInterrupt):
        answer("again", adapters["sure"], min_probability=0.1)
    monkeypatch.undo()
    again, _ = answer("again", adapters["sure"], min_probability=0.1)
    pd.testing.assert_frame_equal(again, whole)


def test_only_calibrated_adapters_have_a_probability(answer, adapters):
    table, _ = answer("routes", f"count={adapters['sure']}", f"default={adapters['plain']}")
    known = table["probability_right"] != ""
    assert set(table["adapter"][known]) == {"count"} and set(table["adapter"][~known]) == {"default"}


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        (["plain"], {}, "plain has no calibration, which training makes from at least 30 validation answers"),
        (["sure"], {"num_beams": 2}, "sure is asked with another prompt, decoding or list of answers"),
        (["sure"], {"prompt": "{question}?"}, "sure is asked with another prompt"),
        ([], {"base_model_id": "tiny"}, "the base alone has no calibration"),
    ],
)
def test_without_a_calibration_the_limit_is_refused(given, changes, message, answer, adapters, tiny_opt, monkeypatch):
    monkeypatch.setattr(model_spec, "load_base", lambda *a, **k: pytest.fail("weights were loaded"))
    changes = changes | ({"base_model_id": str(tiny_opt)} if "base_model_id" in changes else {})
    with pytest.raises(InputError, match=f"--min_probability: .*{message}"):
        answer("out", *(adapters[name] for name in given), min_probability=0.5, **changes)


def test_python_gives_it_too(adapters, drawn, tiny_opt):
    picture = next(drawn[0].iterdir())
    (sure,) = load(adapters["sure"], dtype="float32").answer_batch([picture], ["what color?"])
    assert sure.probability_right == pytest.approx(by_hand(sure.confidence))
    (plain,) = load(tiny_opt, dtype="float32").answer_batch([picture], ["what color?"])
    assert plain.probability_right is None
