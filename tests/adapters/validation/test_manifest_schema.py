"""Manifests as they are written pass the schema; refusals are told in plain words. Malformed ones: see test_safety.py."""

from dataclasses import asdict

from blip2vqa.adapters.base.fingerprints import fingerprint_base
from blip2vqa.adapters.validation.config_schema import check_config
from blip2vqa.adapters.validation.manifest_schema import DecodingOptions, Metrics, check_manifest
from blip2vqa.adapters.validation.schema import problems_of
from blip2vqa.evaluation.metrics import METRICS
from blip2vqa.evaluation.tasks import TASKS
from blip2vqa.inference.request import Decoding
from helpers.malformed_manifests import GOOD


def test_manifests_as_they_are_written_pass(tiny_opt):
    known = GOOD | {
        "format": 1, "task": "caption", "family": "opt", "base_model_id": str(tiny_opt), "base_model_revision": None,
        "base": fingerprint_base(tiny_opt), "prompt": "a\nb {question}", "decoding": asdict(Decoding()), "end_token": "\n",
        "answers": ["a", "b"], "quantization": "none", "roles": [], "rank": 16, "alpha": 0.5, "seed": -1, "unheard_of": [{}],
        "metrics": {"base": {}, "adapter": {"accuracy": None, "cider": float("nan"), "n": 3, "by_question_type": {"a": {}}}},
        "data": {"table": "a/b.csv", "rows_train": 0, "rows_val": None, "more": 1}, "split": {"val_split": 0.2, "a": []},
        "origin": {"command": "merge", "of": [{"name": "/a/b", "sha256": "x", "weight": -1}], "error": 0.5, "notes": ["a"]},
    }  # fmt: skip
    assert check_manifest(known) == []
    absent = ("base", "decoding", "metrics", "data", "split", "origin", "answers", "prompt", "task", "rank")
    assert check_manifest(known | dict.fromkeys(absent)) == []
    assert check_manifest(known | {"decoding": {}, "origin": {}, "metrics": {}}) == []


def test_problems_are_told_in_plain_words():
    config = {
        "peft_type": "LORA",
        "r": 0,
        "lora_alpha": 1,
        "target_modules": [],
        "lora_dropout": 2,
        "rank_pattern": {"*": 1},
    }
    assert check_config(config) == [
        "r is 0; it has to be at least 1",
        "target_modules is []; it has to have at least 1 item, not 0",
        "rank_pattern is '*'; it has to be a module's name (letters, digits, '.', '_', '-'; no regular expression)",
        "lora_dropout is 2; it has to be at most 1",
    ]
    assert check_manifest({"format": 1, "answers": ["a", 1], "decoding": {"num_beams": 0}, "base": {}}) == [
        "base has no parts",
        "base has no dtype",
        "decoding.num_beams is 0; it has to be at least 1",
        "answers[1] is 1; it has to be a text",
    ]


def test_manifests_are_checked_for_all_that_there_is():
    for name in METRICS:
        (problem,) = problems_of(Metrics, {"adapter": {name: "much"}})
        assert problem == f"adapter.{name} is 'much'; it has to be a number"
    assert DecodingOptions.model_fields.keys() == Decoding.__dataclass_fields__.keys()
    assert all(check_manifest({"format": 1, "task": task}) == [] for task in TASKS)
