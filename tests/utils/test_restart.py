"""The command that goes on is the one that was given, its launcher included."""

import sys
from types import SimpleNamespace

import psutil
import pytest

from blip2vqa.utils.restart import resuming_command

RESUME = "--resume_from_checkpoint"


def under(monkeypatch, *words: str) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    parent = SimpleNamespace(cmdline=lambda: list(words))
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(parent=lambda: parent))


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["finetune.py", "--csv_path", "a b"], f"python finetune.py --csv_path 'a b' {RESUME}"),
        (["/usr/bin/blip2vqa", "finetune", "c.json"], f"blip2vqa finetune c.json {RESUME}"),
        (["finetune.py", RESUME], f"python finetune.py {RESUME}"),
        (["finetune.py", RESUME, "--seed", "1"], f"python finetune.py {RESUME} --seed 1"),
        (["finetune.py", RESUME, "out/checkpoint-3"], f"python finetune.py {RESUME} out/checkpoint-3 {RESUME}"),
    ],
)
def test_of_one_process(argv, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert resuming_command() == command


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["/v/bin/python3", "/v/bin/accelerate", "launch", "--num_processes", "2", "finetune.py", "c.json"],
         f"accelerate launch --num_processes 2 finetune.py c.json {RESUME}"),
        (["/v/bin/python3", "/v/bin/blip2vqa", "finetune", "--num_processes", "2"],
         f"blip2vqa finetune --num_processes 2 {RESUME}"),
        (["/v/bin/python3", "-m", "blip2vqa", "finetune"], f"python -m blip2vqa finetune {RESUME}"),
        (["bash", "job.sh"], f"python finetune.py c.json {RESUME}"),
    ],
)  # fmt: skip
def test_of_a_launch(words, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["finetune.py", "c.json"])
    under(monkeypatch, *words)
    assert resuming_command() == command
