"""Commands in several processes, started by accelerate's launcher: a few real ones, and how their flags are told apart."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from blip2vqa.cli.launch import split_flags
from blip2vqa.utils.errors import InputError
from helpers.paths import ROOT


def front_door(*argv, **environment) -> subprocess.CompletedProcess:
    """`python -m blip2vqa ARGV…`, without the network; its output as text."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, "-m", "blip2vqa", *map(str, argv)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def arguments(tiny_opt, drawn) -> list:
    images, table = drawn
    return ["--base_model_id", tiny_opt, "--image_dir", images, "--csv_path", table, "--bertscore_model", "none"]


@pytest.fixture(scope="module")
def tuned(arguments, tmp_path_factory):
    """A run in two processes, whose output goes to files."""
    out = tmp_path_factory.mktemp("launched") / "run"
    done = front_door(
        "finetune", "--num_processes", "2", *arguments, "--output_dir", out, "--epochs", "1", "--mixed_precision=no",
        "--dtype", "float32", "--quantization", "none", "--logging_steps", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done


def test_two_processes_make_one_run(tuned):
    out, done = tuned
    assert done.stdout.count("Fine-tuning") == done.stdout.count("Done") == 1 and "2 processes" in done.stdout
    assert load_file(out / "adapter_model.safetensors")
    assert "ddp_backend" not in json.loads((out / "run.json").read_text())  # another launch may choose another


def test_a_configuration_of_one_process_is_enough(arguments, write, tmp_path):
    config = write("launch.yaml", "distributed_type: 'NO'\nnum_processes: 1\n")
    done = front_door(
        "finetune", "--config_file", config, *arguments, "--output_dir", tmp_path / "run", "--max_steps", "1",
        "--eval_strategy", "no", "--quantization", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "run" / "adapter_model.safetensors")


def test_output_that_is_no_terminal_has_no_bars_and_no_warnings_of_libraries(tuned):
    _, done = tuned
    assert "\r" not in done.stderr + done.stdout
    ours = ("WARNING ",)
    assert [line for line in done.stderr.splitlines() if not line.startswith(ours)] == []


def test_two_processes_answer_one_table(tuned, arguments, drawn, tmp_path):
    out, _ = tuned
    results = tmp_path / "results.csv"
    done = front_door(
        "infer",
        *arguments,
        "--lora_model_path",
        out,
        "--output_path",
        results,
        "--num-processes=2",
        "--batch_size",
        "4",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Answers:") == 1 and len(results.read_text().splitlines()) == 37
    assert "\r" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_processes", "2", "--csv_path", "absent.csv"], "--csv_path absent.csv: no such file"),
        (["--num_processes", "two"], "invalid int value: 'two'"),
        (["--config_file", "absent.yaml"], "absent.yaml"),
        (["--num_processes", "2", "--lora_dropout", "1.5"], "--lora_dropout: 1.5 is out of range"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(argv, message, arguments, tmp_path):
    done = front_door("finetune", *arguments, "--output_dir", tmp_path / "out", *argv)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line[:7] for line in done.stderr.splitlines()] == ["error: "] and message in done.stderr


def test_what_fails_on_the_way_is_code_1(arguments, tmp_path):
    (tmp_path / "file").write_text("a file where a folder must be made")
    done = front_door("finetune", *arguments, "--output_dir", tmp_path / "file" / "out", "--num_processes", "2")
    assert done.returncode == 1 and "ChildFailedError" not in done.stderr


def test_flags_of_the_launcher_are_told_apart():
    argv = ["--csv_path", "t", "--num_processes", "2", "--gpu-ids=0,1", "--epochs", "3", "--config_file=c.yaml"]
    launcher, rest = split_flags(argv)
    assert launcher == ["--num_processes=2", "--gpu_ids=0,1", "--config_file=c.yaml"]
    assert rest == ["--csv_path", "t", "--epochs", "3"]
    with pytest.raises(InputError, match="--num_processes: expected one argument"):
        split_flags(["--num_processes"])
