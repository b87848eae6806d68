"""The scripts as a user runs them: real processes, exit codes, two processes, a Hub on loopback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from helpers.launching import run_script
from helpers.loopback_hub import serve
from helpers.paths import ROOT

ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]


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


@pytest.fixture(scope="module")
def tuned(tiny_opt, drawn, tmp_path_factory):
    """finetune.py, launched as the README says, with two optimizer steps an epoch and no dropout."""
    out = tmp_path_factory.mktemp("tuned") / "run"
    done = run(
        *ACCELERATE, "finetune.py", *base_arguments(tiny_opt, drawn), *SAME, "--output_dir", out, "--batch_size", "4"
    )
    assert done.returncode == 0, done.stderr
    return out, done


# One third of twelve images is validation: 24 questions train, which a global batch of four divides.
SAME = (
    "--lora_dropout 0 --epochs 2 --logging_steps 1 --learning_rate 1e-2 --warmup_steps 2 --val_split 0.33 --use_cpu"
).split()


def losses(folder: Path) -> list[float]:
    histories = [
        json.loads(path.read_text())["log_history"] for path in folder.glob("checkpoints/*/trainer_state.json")
    ]
    return [entry["loss"] for entry in max(histories, key=len) if "loss" in entry]


def test_finetune_prints_both_summaries_and_the_table(tuned):
    out, done = tuned
    for text in (
        "Fine-tuning",
        "LoRA modules by role",
        "effective batch",
        "base + adapter",
        "blind baseline",
        str(out),
    ):
        assert text in done.stdout
    assert "Traceback" not in done.stderr


def test_two_processes_lose_the_same_as_one(tuned, tiny_opt, drawn, tmp_path):
    out, _ = tuned
    done = run(
        *ACCELERATE, "--config_file", "configs/accelerate/cpu_2_processes.yaml", "finetune.py",
        *base_arguments(tiny_opt, drawn), *SAME, "--output_dir", tmp_path / "two", "--batch_size", "2",
        "--ddp_backend", "gloo",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Fine-tuning") == 1
    assert "2 processes" in done.stdout
    one, two = losses(out), losses(tmp_path / "two")
    assert len(one) >= 6 and two == pytest.approx(one, rel=1e-4)
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (out, tmp_path / "two"))
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-2, atol=1e-4)
    assert (tmp_path / "two" / "predictions.csv").read_text().count("\n") == (
        out / "predictions.csv"
    ).read_text().count("\n")


def test_inference_answers_with_the_adapter_alone_named(tuned, drawn, tmp_path):
    out, _ = tuned
    images, table = drawn
    results = tmp_path / "results.csv"
    done = run_script(
        "inference.py", "--image_dir", images, "--csv_path", table, "--output_path", results,
        "--lora_model_path", out, "--batch_size", "16", "--bertscore_model", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(results.read_text().splitlines()) == 37
    assert "adapter" in json.loads(results.with_suffix(".metrics.json").read_text())
    again = run_script("inference.py", "--score", results, "--csv_path", table, "--bertscore_model", "none")
    assert again.returncode == 0, again.stderr


def test_two_processes_answer_each_row_once_into_one_table(tuned, drawn, tmp_path):
    out, _ = tuned
    images, table = drawn
    (tmp_path / "answers.txt").write_text("red\ngreen\nblue\nyellow\nyes\nno\none\n")
    said = {}
    for name, launcher in (
        ("one", [sys.executable]),
        ("two", [*ACCELERATE, "--config_file", "configs/accelerate/cpu_2_processes.yaml"]),
    ):
        done = run(
            *launcher, "inference.py", "--image_dir", images, "--csv_path", table, "--output_path", tmp_path / f"{name}.csv",
            "--lora_model_path", out, "--batch_size", "4", "--bertscore_model", "none", "--dtype", "float32",
            "--feature_cache", tmp_path / f"store-{name}", "--answers", tmp_path / "answers.txt",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Answering") == done.stdout.count("Answers:") == 1
        assert "query_output of 12 images, 12 of them new" in done.stdout
        said[name] = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False)
        assert sorted(path.name for path in tmp_path.glob(f"{name}.*")) == [f"{name}.csv", f"{name}.metrics.json"]
    one, two = said["one"], said["two"]
    numbers = ["confidence", "ranked_answers"]
    assert len(one) == 36 and one.drop(columns=numbers).equals(two.drop(columns=numbers))
    assert two["confidence"].tolist() == pytest.approx(one["confidence"].tolist(), abs=2e-6)
    for ranked, ranked_by_two in zip(one["ranked_answers"], two["ranked_answers"], strict=True):
        assert [name for name, _ in json.loads(ranked)] == [name for name, _ in json.loads(ranked_by_two)]


def test_base_and_adapter_by_hub_id(tuned, tiny_opt, drawn, tmp_path):
    """The real client against a server on loopback, into an empty cache."""
    out, _ = tuned
    hub = tmp_path / "hub"
    shutil.copytree(tiny_opt, hub / "someone" / "tiny-base")
    adapter = hub / "someone" / "tiny-adapter"
    adapter.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "blip2vqa.json"):
        text = (out / name).read_bytes().replace(str(tiny_opt).encode(), b"someone/tiny-base")
        (adapter / name).write_bytes(text if name.endswith("json") else (out / name).read_bytes())
    images, table = drawn
    results, local = tmp_path / "hub.csv", tmp_path / "local.csv"
    common = ["--image_dir", images, "--csv_path", table, "--bertscore_model", "none", "--batch_size", "16"]
    with serve(hub) as server:
        network = {"HF_ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "cache")}
        command = (sys.executable, "inference.py", *common, "--lora_model_path", "someone/tiny-adapter")
        done = run(*command, "--output_path", results, **network)
        assert done.returncode == 0, done.stderr
        assert any("/tiny-base/" in path and path.endswith("/model.safetensors") for path in server.requests)
        wrong = run(*command, "--lora_revision", "v9", "--output_path", tmp_path / "w.csv", **network)
        absent = run(*command[:-1], "someone/nothing", "--output_path", tmp_path / "w.csv", **network)
    for failed in (wrong, absent):
        assert failed.returncode == 2 and "Traceback" not in failed.stderr
        assert sum(line.startswith("error: ") for line in failed.stderr.splitlines()) == 1
    assert run_script(*command[1:-1], out, "--output_path", local).returncode == 0
    assert results.read_text() == local.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lerning_rate", "1"], "did you mean --learning_rate?"),
        (["--csv_path", "absent.csv", "--image_dir", "."], "absent.csv"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    done = run_script("finetune.py", *arguments, "--output_dir", tmp_path / "out", "--base_model_id", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize("script", ["finetune.py", "inference.py"])
def test_help(script):
    done = run_script(script, "--help")
    assert done.returncode == 0 and "--csv_path" in done.stdout
