"""Every shipped configuration parses, passes its checks, and is described."""

import json

import pytest

from blip2vqa.config import finetune
from blip2vqa.config.parser import parse
from blip2vqa.config.styles import known_styles, read_style
from blip2vqa.inference.systems import read_systems
from helpers.paths import ROOT

SYSTEMS = sorted((ROOT / "configs" / "systems").glob("*.json"))
CONFIGS = sorted({*(ROOT / "configs").rglob("*.json")} - {*SYSTEMS})
PARTS = finetune.FINETUNE_ARGUMENTS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
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
    assert base.startswith(("Salesforce/", "dandelin/vilt-")) or (ROOT / base / "config.json").is_file()


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_systems_are_readable_and_described(path):
    assert read_systems(str(path))
    assert f"`{path.name}`" in (ROOT / "docs" / "configs.md").read_text()


@pytest.mark.parametrize("name", known_styles())
def test_style_is_a_configuration_for_captions(name):
    parts, resolved = parse(
        PARTS, "test", ["--task", "caption", "--style", name, "--csv_path", "TABLE.csv", "--use_cpu"]
    )
    assert [problem for part in parts[1:] for problem in part.check()] == []
    assert read_style(name).items() <= resolved.items()
