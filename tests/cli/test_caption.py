"""caption.py as a user runs it: captions on the screen and in a table, and what is missing in one line."""

import csv
import subprocess
import sys

import pytest

from helpers.launching import run_script
from helpers.paths import ROOT


def test_pictures_are_captioned(tiny_opt, drawn, tmp_path):
    images, table = drawn[0], tmp_path / "captions.csv"
    done = run_script(
        "caption.py", "--images", images / "0.png", images / "1.png", "--base_model_id", tiny_opt, "--styles", "concise",
        "--output_path", table, "--dtype", "float32", "--quantization", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["style"], row["status"]) for row in rows] == [
        (str(images / name), "concise", "ok") for name in ("0.png", "1.png")
    ]
    assert "captions: 2 of 2 images" in done.stdout


def test_without_arguments_it_says_what_is_missing():
    done = run_script("caption.py")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --images: missing; for example: python caption.py --images PICTURES/")


@pytest.mark.parametrize("words", [["caption.py"], ["-m", "blip2vqa", "caption"]])
def test_without_a_terminal_nothing_is_drawn(words, tiny_opt, drawn, tmp_path):
    """In a new interpreter: libraries read at their import whether bars are wanted."""
    command = [
        sys.executable, *words, "--images", drawn[0] / "0.png", "--base_model_id", tiny_opt, "--styles", "concise",
        "--output_path", tmp_path / "captions.csv", "--log_level", "error",
    ]  # fmt: skip
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_style_of_ones_own_may_be_yaml(tiny_opt, drawn, tmp_path):
    style, table = tmp_path / "mine.yaml", tmp_path / "captions.csv"
    style.write_text("prompt: a square of\nmax_new_tokens: 3\n")
    done = run_script(
        "caption.py", "--images", drawn[0] / "0.png", "--base_model_id", tiny_opt, "--styles", style, "--output_path", table,
        "--dtype", "float32", "--quantization", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["style"] for row in csv.DictReader(file)] == ["mine"]
