"""The command line that goes on with a stopped run, as the user can give it."""

import os
import shlex
import sys
from pathlib import Path

import psutil

from blip2vqa.utils.console import called

RESUME = "--resume_from_checkpoint"
_LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
"""What accelerate and torchrun set in the environment of the processes that they start."""


def resuming_command(command: str = "finetune") -> str:
    """Return the command line that `command` was started by, its launcher's included, with --resume_from_checkpoint."""
    words = _launcher(command) or _own(command)
    at = words.index(RESUME) + 1 if RESUME in words else 0
    resumes = at and (at == len(words) or words[at].startswith("--"))
    return shlex.join(words if resumes else [*words, RESUME])


def _own(command: str) -> list[str]:
    by_name = called(command).startswith("blip2vqa ")
    return ["blip2vqa", command, *sys.argv[2:]] if by_name else ["python", *sys.argv]


def _launcher(command: str) -> list[str]:
    """Return the words of the launcher that started this process; none where there is no such."""
    if not os.environ.keys() & set(_LAUNCHED):
        return []
    try:
        words = psutil.Process().parent().cmdline()
    except (psutil.Error, AttributeError):  # it has ended
        return []
    if not any(Path(word).stem == command for word in words):
        return []
    if Path(words[0]).name.startswith("python"):
        script = words[1].startswith("-") or words[1].endswith(".py")
        words = ["python", *words[1:]] if script else [Path(words[1]).name, *words[2:]]
    return words
