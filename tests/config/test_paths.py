"""Settings in a file lead to the same files from any working folder, also when the file's folder has moved."""

import json
import os

from blip2vqa.config.common import DataArguments, ModelArguments
from blip2vqa.config.parser import parse
from blip2vqa.config.paths import FROM, absolute, for_file, from_file


def test_paths_below_the_file_are_relative_to_it_and_others_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run/data", "images", "vqa"):
        os.makedirs(name)
    (tmp_path / "run/data/t.csv").touch()
    given = {
        "csv_path": "run/data/t.csv", "image_dir": "images", "output_dir": "run", "answers": "table",
        "base_model_id": "Salesforce/blip2-opt-2.7b", "task": "vqa", "feature_cache": "absent",
    }  # fmt: skip
    kept = for_file(given, tmp_path / "run")
    changed = {"csv_path": "data/t.csv", "image_dir": str(tmp_path / "images"), "output_dir": ".", FROM: "this file"}
    assert kept == given | changed
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    read = from_file(kept, tmp_path / "moved")
    assert read["csv_path"] == str(tmp_path / "moved/data/t.csv") and read["output_dir"] == str(tmp_path / "moved")
    assert FROM not in read and read["image_dir"] == str(tmp_path / "images") and read["answers"] == "table"


def test_files_of_people_and_of_earlier_versions_start_at_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "t.csv").touch()
    assert from_file({"csv_path": "t.csv"}, tmp_path) == {"csv_path": "t.csv"}
    monkeypatch.chdir(tmp_path)
    assert absolute({"csv_path": "t.csv"}) == {"csv_path": str(tmp_path / "t.csv")}


def test_a_configuration_is_read_so(tmp_path):
    (tmp_path / "t.csv").touch()
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"csv_path": "t.csv", FROM: "this file"}))
    (_, data), _ = parse([ModelArguments, DataArguments], "test", [str(config)])
    assert data.csv_path == str(tmp_path / "t.csv")
