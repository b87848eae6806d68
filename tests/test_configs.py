"""Every shipped configuration parses, passes its checks, and is described; benchmarks run at their tiny shape."""

import json
import subprocess
import sys
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


def test_real_size_benchmark_at_the_tiny_shape(tmp_path):
    output = tmp_path / "figures.json"
    command = [sys.executable, "benchmarks/real_size.py", "--shape", "tiny", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert all(figures[f"{name}_seconds"] > 0 for name in ("encode", "training_step", "answer_batch"))
    assert figures["peak_memory_bytes"] > 0
