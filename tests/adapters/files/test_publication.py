"""What is published says nothing of this machine, and leaves the user's own words as they are."""

import json

import pytest

from blip2vqa.adapters.files.publication import published
from blip2vqa.adapters.resolve import open_adapter
from blip2vqa.adapters.validation.manifest_schema import USES
from blip2vqa.utils.errors import InputError
from helpers.family_bases import random_adapter

WORDS = "/not/a/path: {question}"


def test_paths_go_and_words_stay(tiny_opt, tmp_path):
    known = {
        "prompt": WORDS, "answers": ["/yes", "~/no"], "end_token": "/end", "style": "/home/me/styles/short",
        "data": {"table": "tables/mine.csv", "rows_train": 3}, "split": {"eval_table": "C:\\tables\\held out.csv"},
        "origin": {"command": "merge", "of": [{"name": "/home/me/runs/a"}, {"name": "user/b"}]},
    }  # fmt: skip
    adapter = open_adapter(random_adapter(tiny_opt, tmp_path / "a", 0, **known))
    files = published(adapter, "me/a", "mit", "Salesforce/blip2-opt-2.7b")
    found = json.loads(files["blip2vqa.json"])
    assert (found["prompt"], found["answers"], found["end_token"]) == (WORDS, ["/yes", "~/no"], "/end")
    assert found["style"] == "short" and found["data"] == {"table": "mine.csv", "rows_train": 3}
    assert found["split"] == {"eval_table": "held out.csv"}
    assert [one["name"] for one in found["origin"]["of"]] == ["a", "user/b"]
    assert found["base_model_id"] == "Salesforce/blip2-opt-2.7b"
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "Salesforce/blip2-opt-2.7b"
    assert str(tmp_path) not in "".join(text.decode() for text in files.values() if isinstance(text, bytes))
    assert [key for key, use in USES.items() if use.words] == ["prompt", "answers", "end_token", "metrics"]


def test_a_base_that_others_cannot_load_is_refused(tiny_opt, tmp_path):
    adapter = open_adapter(random_adapter(tiny_opt, tmp_path / "a", 0))
    with pytest.raises(InputError, match=r"its base is a local folder.*--base_model_id"):
        published(adapter, "me/a", None, None)
