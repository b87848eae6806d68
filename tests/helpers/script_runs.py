"""Runs of the scripts as processes of their own, as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from helpers.paths import ROOT

ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
# One third of twelve images is validation: 24 questions train, which a global batch of four divides.
SAME = (
    "--lora_dropout 0 --epochs 2 --logging_steps 1 --learning_rate 1e-2 --warmup_steps 2 --val_split 0.33 --use_cpu"
).split()


def run(*command, **environment) -> subprocess.CompletedProcess:
    """Run a command in the project's folder, without the network; its output as text."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )


def base_arguments(base, drawn) -> list[str]:
    images, table = drawn
    return [
        *("--base_model_id", base, "--image_dir", images, "--csv_path", table, "--bertscore_model", "none"),
        *("--dtype", "float32", "--quantization", "none"),
    ]


def losses(folder: Path) -> list[float]:
    histories = [
        json.loads(path.read_text())["log_history"] for path in folder.glob("checkpoints/*/trainer_state.json")
    ]
    return [entry["loss"] for entry in max(histories, key=len) if "loss" in entry]


def assert_same_run(one: Path, two: Path) -> None:
    """Check that two runs had the same losses, weights and answers, but for rounding."""
    expected, found = losses(one), losses(two)
    assert len(expected) >= 6 and found == pytest.approx(expected, rel=1e-4)
    weights, whole = load_file(two / "adapter_model.safetensors"), load_file(one / "adapter_model.safetensors")
    assert list(weights) == list(whole)
    assert all((weights[key] - whole[key]).abs().max() < 2e-3 for key in whole)
    answers = [(folder / "predictions.csv").read_text().splitlines() for folder in (one, two)]
    texts = [[row.rsplit(",", 4)[0] for row in rows] for rows in answers]
    assert texts[0] == texts[1] and len(texts[0]) == 13
