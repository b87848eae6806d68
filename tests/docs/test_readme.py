"""The README's own commands: all of them parse, and the two of its first screen and its Python run."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from blip2vqa.config.caption import CaptionArguments
from blip2vqa.config.finetune import FINETUNE_ARGUMENTS
from blip2vqa.config.generate import VQA_ARGUMENTS
from blip2vqa.config.inference import InferenceArguments
from blip2vqa.config.parser import parse, parse_command
from blip2vqa.exchange.commands import COMMANDS
from helpers.paths import ROOT

README = (ROOT / "README.md").read_text()
# What a reader puts in for the README's placeholders.
SCRIPTS = {"finetune.py": FINETUNE_ARGUMENTS, "inference.py": [InferenceArguments], "caption.py": [CaptionArguments]}
SCRIPTS |= {"exchange.py": COMMANDS, "generate_vqa.py": VQA_ARGUMENTS}
PLACEHOLDERS = {"CONFIG.json": "configs/quickstart.json", "OUT/run.json": "configs/quickstart.json"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Lines of bash blocks, with continuations joined and chains split, and commands that stand in the text."""
    lines = [part.split(" #")[0].strip() for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()
             for part in line.split("&&")]  # fmt: skip
    inline = re.findall(r"`((?:accelerate launch|python)\s[^`]*)`", README.replace("\n", " "))
    return [command for command in lines + inline if any(script in command for script in SCRIPTS)]


@pytest.mark.parametrize("command", commands())
def test_command_parses(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command.replace("…", ""))]
    script = next(word for word in words if word in SCRIPTS)
    rest = words[words.index(script) + 1 :]
    if script == "finetune.py":
        # Without a launcher there is no process group for a backend to belong to.
        rest = shlex.split(shlex.join(rest).replace("--ddp_backend gloo", ""))
        rest += [] if "--use_cpu" in rest else ["--use_cpu"]
    if script == "exchange.py":
        parse_command(rest[0], COMMANDS[rest[0]].arguments, rest[1:])
    else:
        parse(SCRIPTS[script], "test", rest)
    assert (ROOT / script).is_file()


def test_the_readme_has_its_commands():
    assert len(commands()) >= 8


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The first command of the README, cut to one epoch."""
    command = next(command for command in commands() if "quickstart.json" in command)
    out = tmp_path_factory.mktemp("quickstart") / "run"
    words = shlex.split(command)
    assert words[:2] == ["accelerate", "launch"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *words[2:]]
    done = subprocess.run(
        [*launch, "--output_dir", str(out), "--epochs", "1"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_quickstart_runs(quickstart):
    out, printed = quickstart
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"base", "adapter", "blind", "swapped"}
    assert "minilm" in metrics["adapter"]["bertscore_scorer"].lower()
    # Even one epoch shows that it learns, and that it looks: the whole run is far above the blind baseline.
    assert metrics["adapter"]["accuracy"] > metrics["base"]["accuracy"] + 0.1
    assert metrics["adapter"]["accuracy"] > metrics["swapped"]["accuracy"] + 0.1
    for text in ("base + adapter", "blind baseline", "images swapped", "question type", "metrics.json"):
        assert text in printed


def test_python_of_the_readme_runs(quickstart, monkeypatch):
    out, _ = quickstart
    images = ROOT / "assets" / "quickstart" / "images"
    pictures = sorted(images.glob("*.png"))
    code = blocks("python")[0].replace('"OUT"', repr(str(out)))
    for name, path in zip(("picture.jpg", "a.jpg", "b.jpg"), pictures, strict=False):
        code = code.replace(f'"{name}"', repr(str(path)))
    space: dict = {}
    exec(code, space)
    answers = space["answers"]
    several = next(block for block in blocks("python") if "add_adapter" in block).replace('"OUT"', repr(str(out)))
    several = several.replace('"OTHER"', repr(str(out))).replace("assets/tiny", str(ROOT / "assets" / "tiny"))
    for name, path in zip(("a.jpg", "b.jpg"), pictures, strict=False):
        several = several.replace(f'"{name}"', repr(str(path)))
    exec("from blip2vqa import load\n" + several, served := {})
    assert len(served["answers"]) == 2 and [*served["model"].source.adapters] == ["b"]
    assert len(answers) == 2 and all(0 <= answer.confidence <= 1 for answer in answers)
    assert isinstance(space["model"].answer(str(pictures[0]), "how many patches are sewn on?"), str)
