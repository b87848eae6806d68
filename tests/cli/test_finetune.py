"""finetune.py as a user runs it: a launched process, two of them, exit codes."""

import pytest
import torch
from safetensors.torch import load_file

from helpers.launching import run_script
from helpers.script_runs import ACCELERATE, SAME, base_arguments, losses, run


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


def test_fp16_of_the_launchers_configuration_is_refused_for_t5(tiny_t5, drawn, write, tmp_path):
    config = write("launch.yaml", "distributed_type: 'NO'\nnum_processes: 1\nmixed_precision: fp16\n")
    words = *base_arguments(tiny_t5, drawn), "--use_cpu", "--output_dir", tmp_path / "out"
    done = run(*ACCELERATE, "--config_file", config, "finetune.py", *words)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: --mixed_precision fp16: BLIP-2 with T5 overflows in float16; ")
    assert done.returncode != 0 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["finetune.py", "inference.py"])
def test_help(script):
    done = run_script(script, "--help")
    assert done.returncode == 0 and "--csv_path" in done.stdout
