"""What the README promises on its first screen runs: its first command, and its Python."""

import json
import shlex
import subprocess
import sys

import pytest

from helpers.doc_pages import README, blocks, commands
from helpers.paths import ROOT

IMAGES = sorted((ROOT / "assets" / "photos" / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The first command of the README, cut to two epochs."""
    command = next(command for command in commands(README) if "quickstart.json" in command)
    out = tmp_path_factory.mktemp("quickstart") / "run"
    words = shlex.split(command)
    assert words[:2] == ["accelerate", "launch"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *words[2:]]
    done = subprocess.run(
        [*launch, "--output_dir", str(out), "--epochs", "2"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def run_block(block: str, adapter) -> dict:
    """Run a block of a page with the quick start's adapter and pictures in place of the reader's; the names it leaves."""
    for name in ("OUT", "OTHER"):
        block = block.replace(f'"{name}"', repr(str(adapter)))
    for name, path in zip(("my_photo.jpg", "picture.jpg", "a.jpg", "b.jpg"), IMAGES, strict=False):
        block = block.replace(f'"{name}"', repr(str(path)))
    exec(block.replace('"assets/', f'"{ROOT}/assets/'), names := {})
    return names


def test_quickstart_runs(quickstart):
    out, printed = quickstart
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"base", "adapter", "blind", "swapped"}
    assert "minilm" in metrics["adapter"]["bertscore_scorer"].lower()
    # Even two epochs show that it learns, and that it looks: the whole run is far above the blind baseline.
    assert metrics["adapter"]["accuracy"] > metrics["base"]["accuracy"] + 0.1
    assert metrics["adapter"]["accuracy"] > metrics["swapped"]["accuracy"] + 0.1
    for text in ("base + adapter", "blind baseline", "images swapped", "question type", "metrics.json"):
        assert text in printed


def test_python_of_the_readme_runs(quickstart):
    names = run_block(blocks(README, "python")[0], quickstart[0])
    answers = names["answers"]
    assert len(answers) == 2 and all(0 <= answer.confidence <= 1 for answer in answers)
    assert isinstance(names["model"].answer(str(IMAGES[0]), "What is it?"), str)


def test_python_of_serving_runs(quickstart):
    _, several, _ = blocks(ROOT / "docs" / "serving.md", "python")
    names = run_block(several, quickstart[0])
    assert len(names["answers"]) == 2 and [ref.name for ref in names["model"].spec.adapters] == ["b"]
