"""Every shipped configuration parses, passes its checks, and is described."""

import json
from pathlib import Path

import pytest

from blip2vqa import arguments
from blip2vqa.parsing import parse

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.json"))
PARTS = arguments.FINETUNE_ARGUMENTS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_parses_and_is_described(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    # Data are given as flags where a configuration leaves them out; --use_cpu for those that ask for a GPU's precision.
    argv = [str(path), "--use_cpu"] + (
        [] if "csv_path" in json.loads(path.read_text()) else ["--csv_path", "TABLE.csv"]
    )
    parts, _ = parse(PARTS, "test", argv)
    assert [problem for part in parts[1:] for problem in part.check()] == []
    assert f"`{path.name}`" in (ROOT / "docs" / "configs.md").read_text()
    base = parts[0].base_model_id
    assert base.startswith("Salesforce/") or (ROOT / base / "config.json").is_file()
