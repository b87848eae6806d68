"""inference.py as a user runs it: an adapter alone named, two processes, a base and an adapter of a Hub on loopback."""

import json
import shutil
import sys

import pandas as pd
import pytest

from helpers.launching import run_script
from helpers.loopback_hub import serve
from helpers.script_runs import ACCELERATE, run


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
        assert sorted(path.name for path in tmp_path.glob(f"{name}.*")) == [
            f"{name}.csv",
            f"{name}.metrics.json",
            f"{name}.report.html",
        ]
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
        assert "someone/tiny-base: its weights are downloaded" in done.stderr
        wrong = run(*command, "--lora_revision", "v9", "--output_path", tmp_path / "w.csv", **network)
        absent = run(*command[:-1], "someone/nothing", "--output_path", tmp_path / "w.csv", **network)
    for failed in (wrong, absent):
        assert failed.returncode == 2 and "Traceback" not in failed.stderr
        assert sum(line.startswith("error: ") for line in failed.stderr.splitlines()) == 1
    assert run_script(*command[1:-1], out, "--output_path", local).returncode == 0
    assert results.read_text() == local.read_text()
