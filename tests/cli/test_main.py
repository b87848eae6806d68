"""The front door: `blip2vqa COMMAND`, `python -m blip2vqa`, and what a command says without torch."""

import subprocess
import sys

import pytest

from blip2vqa import __main__, __version__
from blip2vqa.utils.console import COMMANDS
from helpers.launching import run_script
from helpers.paths import ROOT


def front_door(monkeypatch, capsys, *argv: str) -> tuple[int, str, str]:
    """Exit code and what is printed of `blip2vqa ARGV…`."""
    monkeypatch.setattr(sys, "argv", ["blip2vqa", *argv])
    try:
        __main__.main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(monkeypatch, capsys, argv):
    code, out, err = front_door(monkeypatch, capsys, *argv)
    assert (code, err) == (0, "")
    assert all(f"  {name} " in out for name in COMMANDS) and "--num_processes" in out
    assert max(map(len, out.splitlines())) <= 100


def test_version(monkeypatch, capsys):
    assert front_door(monkeypatch, capsys, "--version") == (0, f"blip2vqa {__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "hint"), [("fintune", "did you mean finetune?"), ("fine", "did you mean finetune?"), ("x", "choose from")]
)
def test_an_unknown_command_is_one_line(monkeypatch, capsys, word, hint):
    code, out, err = front_door(monkeypatch, capsys, word)
    assert (code, out) == (2, "") and hint in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_in_its_own_name(monkeypatch, capsys, command):
    code, out, err = front_door(monkeypatch, capsys, command, "--help")
    assert (code, err) == (0, "") and f"blip2vqa {command} " in out and ".py" not in out.split("\nWrites")[0]
    assert len(out.splitlines()) <= 100 and max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("finetune", "--lerning_rate", "1"), "--lerning_rate: unknown; did you mean --learning_rate?"),
        (("finetune", "--lora_r", "many"), "invalid int value: 'many'"),
        (("finetune", "--num_processes"), "argument --num_processes: expected one argument"),
        (("infer", "--csv_path", "absent.csv"), "--csv_path absent.csv: no such file"),
        (("infer", "--base_model_id", "./absent"), "base model ./absent: no such folder"),
        (("caption", "--imagse", "a"), "--imagse: unknown; did you mean --images?"),
        (("demo", "--prot", "7000"), "--prot: unknown; did you mean --port?"),
        (("generate", "--seed", "x"), "invalid int value: 'x'"),
        (("exchange", "lst"), "command 'lst': not known"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(monkeypatch, capsys, argv, message):
    code, out, err = front_door(monkeypatch, capsys, *argv)
    assert (code, out) == (2, "") and message in err
    assert all(line.startswith("error: ") for line in err.splitlines())


@pytest.mark.parametrize("script", ["finetune", "inference", "caption", "generate_vqa"])
def test_a_script_without_arguments_says_what_to_give(script):
    done = run_script(f"{script}.py")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --") and ": missing; for example: " in line and f" {script}.py --" in line


def test_every_problem_of_the_arguments_is_told_with_a_wrong_path(monkeypatch, capsys):
    argv = ("finetune", "--csv_path", "absent.csv", "--image_dir", "absent", "--lora_r", "0", "--val_split", "2")
    code, _, err = front_door(monkeypatch, capsys, *argv)
    assert code == 2 and len(err.splitlines()) == 5 and "--output_dir: missing" in err


WITHOUT_TORCH = [
    "finetune.py --help",
    "finetune.py --version",
    "finetune.py --lerning_rate 1",
    "finetune.py --csv_path absent.csv --image_dir absent",
    "inference.py --csv_path absent.csv --image_dir absent",
    "inference.py --systems absent.yaml --answers absent.txt",
    "inference.py --score {folder}/said.csv --csv_path {folder}/questions.csv --bertscore_model none",
    "demo.py --help",
    "demo.py --image_dir absent",
    "exchange.py list {folder}",
    "exchange.py inspect ./absent",
    "exchange.py import absent.zip",
    "exchange.py transfer x y --output z --csv_path absent.csv",
    "generate_vqa.py --csv_path absent.csv --image_dir absent",
]


@pytest.mark.parametrize("line", WITHOUT_TORCH)
def test_what_needs_no_model_imports_no_torch(line, tmp_path):
    (tmp_path / "questions.csv").write_text("image_name,question,answer\na.png,what is it,dog\n")
    (tmp_path / "said.csv").write_text("image_name,question,answer,generated_answer\na.png,what is it,dog,dog\n")
    probe = (
        "import atexit, runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, '');"
        "atexit.register(lambda: print('torch imported' if 'torch' in sys.modules else 'no torch'));"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = line.format(folder=tmp_path).split()
    done = subprocess.run([sys.executable, "-c", probe, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "no torch"
    assert "Traceback" not in done.stderr


def test_exchange_tells_its_version_and_the_nearest_command(monkeypatch, capsys):
    assert front_door(monkeypatch, capsys, "exchange", "--version") == (0, f"blip2vqa {__version__}\n", "")
    code, out, err = front_door(monkeypatch, capsys, "exchange", "lst")
    assert (code, out) == (2, "") and err.startswith("error: command 'lst': not known; choose from list, ")
    assert err.endswith("; did you mean list?\n")


@pytest.mark.parametrize("flags", [["--help", "all"], ["--help=all"], ["-h", "all"]])
def test_help_all_has_the_options_of_trainer(monkeypatch, capsys, flags):
    code, out, _ = front_door(monkeypatch, capsys, "finetune", *flags)
    assert code == 0 and "--lr_scheduler_type" in out.split("Writes into")[1].split("\n\n", 1)[1]
