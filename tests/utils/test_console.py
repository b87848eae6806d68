"""How a script is called, how it ends, and what it prints."""

import errno
import logging
import os
import subprocess
import sys
import warnings

import pytest
import torch.distributed as dist

from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.parser import parse
from blip2vqa.utils.console import called, named, run_script, set_log_level
from helpers.launching import run_script as run_process
from helpers.paths import ROOT


@pytest.mark.parametrize(
    ("program", "run", "name"),
    [
        ("/somewhere/inference.py", "accelerate launch finetune.py", "finetune.py"),
        ("/usr/bin/pytest", "accelerate launch finetune.py", "finetune.py"),
        ("/usr/bin/blip2vqa", "blip2vqa finetune", "blip2vqa finetune"),
        ("/usr/lib/blip2vqa/__main__.py", "blip2vqa finetune", "blip2vqa finetune"),
        ("/usr/lib/pytest/__main__.py", "accelerate launch finetune.py", "finetune.py"),
    ],
)
def test_commands_are_named_as_the_user_called_this_one(program, run, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program])
    assert (called("finetune"), named("finetune")) == (run, name)


def test_a_script_that_is_done_has_left_its_process_group(tmp_path):
    seen = []

    def main():
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
        seen.append(dist.is_initialized())

    run_script(main)
    assert seen == [True]
    assert not dist.is_initialized()


def test_a_process_whose_launch_has_lost_another_says_so_in_one_line(monkeypatch, capsys):
    def main():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1945")

    with pytest.raises(RuntimeError):
        run_script(main)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: another process of this launch has ended: it has said why, or was killed; run the same command again\n"
    )


@pytest.fixture
def levels(monkeypatch):
    """The root logger, whose level, like the filters of warnings, is put back afterwards."""
    root = logging.getLogger()
    before = root.level
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield root
    root.setLevel(before)


@pytest.mark.parametrize(("name", "shown"), [("debug", True), ("warning", True), ("error", False), ("critical", False)])
def test_one_switch_for_log_lines_and_warnings(levels, name, shown):
    parse([InferenceArguments], "", ["--log_level", name])
    assert logging.getLogger("blip2vqa.anything").getEffectiveLevel() == getattr(logging, name.upper())
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("a warning", UserWarning, stacklevel=1)
    assert bool(caught) == shown


def test_without_the_switch_nothing_changes(levels):
    before = levels.level
    for name in (None, "passive"):
        set_log_level(name)
    assert levels.level == before


def test_a_script_at_log_level_error_prints_errors_alone(drawn, tiny_opt, tmp_path):
    images, table = drawn
    rows = table.read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join(rows[:7]))
    argv = ["finetune.py", "--csv_path", tmp_path / "t.csv", "--eval_csv_path", tmp_path / "t.csv"]
    argv += ["--image_dir", images, "--base_model_id", tiny_opt, "--output_dir", tmp_path / "run", "--bertscore_model"]
    argv += ["none", "--epochs", "1", "--use_cpu"]
    done = run_process(*argv, "--log_level", "error")
    assert (done.returncode, done.stderr) == (0, "")
    warned = run_process(*argv, "--output_dir", tmp_path / "again")
    assert "WARNING " in warned.stderr and "\r" not in warned.stderr


def test_a_failure_of_the_disk_is_one_line(capsys):
    def main():
        raise OSError(errno.ENOSPC, "No space left on device", "out/a.csv")

    with pytest.raises(SystemExit) as ended:
        run_script(main, "the same command goes on")
    assert ended.value.code == 1
    said = "error: out/a.csv: No space left on device; files that were finished are kept; the same command goes on\n"
    assert capsys.readouterr().err == said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_an_output_that_cannot_be_written_is_one_line():
    script = "from blip2vqa.utils.console import run_script; run_script(lambda: print('said', flush={flush}))"
    for flush in (True, False):
        with open("/dev/full", "w") as full:
            command = [sys.executable, "-c", script.format(flush=flush)]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: the output: No space left on device; ")


def test_other_failures_keep_their_traceback():
    with pytest.raises(KeyError):
        run_script(lambda: {}["absent"])
