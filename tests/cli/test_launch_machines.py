"""Two machines of one launch: they make the files of one process, and end together when one of them is lost."""

import os
import signal
import time

import pandas as pd
import pytest
from safetensors.torch import load_file

from blip2vqa.utils.distributed import check_shared
from helpers.launching import Launch, run_script
from helpers.script_runs import SAME, base_arguments, losses
from helpers.two_machines import two_machines, why_not

CONFIG = "configs/accelerate/cpu_2_processes.yaml"


@pytest.fixture(scope="module")
def machines():
    if reason := why_not():
        pytest.skip(reason)
    with two_machines() as names:
        yield names


@pytest.fixture
def training(machines, tiny_opt, drawn, tmp_path):
    """Start a run on both machines: `training(*flags, **what_differs)`."""

    def training(*flags, **differs) -> Launch:
        arguments = [*base_arguments(tiny_opt, drawn), *SAME, "--batch_size", "2", "--ddp_backend", "gloo", *flags]
        return Launch(tmp_path, CONFIG, "finetune.py", *arguments, machines=machines, **differs)

    return training


def test_training_and_answers_are_those_of_one_process(training, machines, tuned, drawn, tmp_path):
    one, two = tuned[0], tmp_path / "two"
    # The second machine keeps features of its own: what the first has encoded it encodes, too.
    with training("--output_dir", two, own=({}, {"XDG_CACHE_HOME": tmp_path / "cache"})) as launch:
        assert launch.wait() == [0, 0], launch.said(1)
    assert list((tmp_path / "cache").rglob("*.safetensors")) and launch.said(0)[1] == ""  # one of them speaks
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    weights, whole = load_file(two / "adapter_model.safetensors"), load_file(one / "adapter_model.safetensors")
    assert list(weights) == list(whole) and all((weights[key] - whole[key]).abs().max() < 1e-3 for key in whole)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}

    images, table = drawn
    arguments = ["--image_dir", images, "--csv_path", table, "--lora_model_path", one, "--bertscore_model", "none"]
    alone = run_script("inference.py", *arguments, "--output_path", tmp_path / "one.csv")
    arguments += ["--output_path", tmp_path / "two.csv"]
    with Launch(tmp_path, CONFIG, "inference.py", *arguments, machines=machines) as launch:
        assert launch.wait() == [0, 0] and alone.returncode == 0, launch.said(1)
    expected, found = (pd.read_csv(tmp_path / name) for name in ("one.csv", "two.csv"))
    assert len(found) == 36 and found.columns.equals(expected.columns)
    assert found.drop(columns="confidence").equals(expected.drop(columns="confidence"))
    assert (found.confidence - expected.confidence).abs().max() < 2e-4


def test_a_killed_process_ends_both_machines_with_a_line(training, tmp_path):
    out = tmp_path / "out"
    flags = ["--output_dir", out, "--max_steps", "100000", "--eval_strategy", "no"]
    with training(*flags) as launch:
        deadline = time.monotonic() + 120
        while "'loss'" not in launch.said(0)[0]:
            assert time.monotonic() < deadline and launch.processes[0].exitcode is None, launch.said(1)
            time.sleep(0.05)
        os.kill(launch.processes[1].pid, signal.SIGKILL)
        assert launch.wait(60) == [1, -signal.SIGKILL]
    lines = [line for line in launch.said(1)[0].splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "another process of this launch has ended" in lines[0]
    assert "Traceback" not in launch.said(1)[0]


def test_a_folder_that_the_machines_do_not_share_is_one_line_on_each(training, tmp_path):
    disks = [tmp_path / "disk0", tmp_path / "disk1"]
    for disk in disks:
        disk.mkdir()
    with training("--output_dir", "out", folders=disks) as launch:
        assert launch.wait() == [2, 2]
    for said in launch.said(1):
        assert [line for line in said.splitlines() if not line.startswith(("WARNING ", "[W"))] == [
            "error: --output_dir out: not shared with machine 0; give a folder that all machines see (on machine 1 of 2)"
        ]
    assert not list((disks[0] / "out").glob(".shared*"))


def test_one_machine_shares_every_folder_with_itself(tmp_path):
    check_shared(tmp_path, "--output_dir")
    assert list(tmp_path.iterdir()) == []
