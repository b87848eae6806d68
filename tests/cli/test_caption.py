"""caption.py as a user runs it: captions on the screen and in a table, and what is missing in one line."""

import csv

from helpers.launching import run_script


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
    assert line.startswith("error: no arguments are given; try python caption.py --images PICTURES/")
