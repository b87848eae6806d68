"""Systems side by side: in a log of 100 columns, as tables that read back, and as a picture."""

import io
import json
import random

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.evaluation.verdict import BLIND
from blip2vqa.reporting.charts import draw_systems
from blip2vqa.reporting.labels import labels, wrap
from blip2vqa.reporting.systems import output_paths, print_systems, write_systems

NAMES = [
    "blip2-opt-2.7b", "[bold]odd[/bold] $x$, name", "runs/detailed-captions_v2 + Salesforce/blip2-flan-t5-xl, 8 bits",
    "blip2-opt-2.7b with the prompt Question: {question} Short answer:", "row", "六", "b" * 90,
]  # fmt: skip
QUESTIONS = [("What color is it?", "color"), ("Is it big?", "yes/no"), ("How many?", "[odd] type of the user's own")]


def result(systems: int, *, answers: bool = True, times: bool = True, images: int = 40, annotators: int = 1) -> dict:
    rng = random.Random(0)
    examples = [
        Example(row, ImageSource("a"), "a.jpg", f"digest-{row // 3}", *rest)
        for row in range(images * 3)
        for question, kind in [QUESTIONS[row % 3]]
        for rest in [(question, (rng.choice("xyz"),) * annotators if answers else (), kind, {})]
    ]
    runs = [
        SystemRun(
            name, [example.answer if rng.random() < 0.3 + place / 10 else rng.choice(["w", ""]) for example in examples],
            "base", "adapter" if place else None, "none", "{question}", 0.05 + place if times and place != 1 else None,
            3 * 2**29, 3_744_761_856, 5_242_880 if place else None,
        )
        for place, name in enumerate(NAMES[:systems])
    ]  # fmt: skip
    return compare(examples, runs, resamples=200)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]


# Terminal


@pytest.mark.parametrize("systems", [1, 4, 7])
def test_tables_fit_a_log(systems, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    found = result(systems, annotators=3)
    for row in found["systems"]:
        row |= {"bertscore_f1": 0.5, "bertscore_scorer": "stub_L1"}
    print_systems(found)
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert max(map(len, lines)) <= 100 and "\x1b" not in output and "BERTScore: stub_L1" in output
    row = found["systems"][0]
    low, high = (f"{100 * bound:.1f}" for bound in row["interval"])
    scores = [f"{row['accuracy']:.1%} ({low}–{high})", f"{row['vqa_accuracy']:.1%}"]
    first = next(line for line in map(cells, lines) if line[1:2] == scores[:1])
    assert first[1:] == [*scores, "0.5000", "0.05", "1.50", "3.74 B", *["-"] * (systems > 1)]
    assert "Empty answers, counted as wrong: blip2-opt-2.7b" in output
    assert output.count("more than noise") + output.count("within noise") == len(found["differences"])
    if systems > 1:
        assert all(part in output for part in ("[bold]odd[/", "$x$", "100.0%"))


def test_a_log_without_answers_shows_what_there_is(capsys):
    print_systems(result(2, answers=False))
    output = capsys.readouterr().out
    assert "accuracy\n" not in output and "Differences" not in output and "question type" not in output
    assert "Agreement" in output and "The table has no answers" in output and "1.50" in output


def test_one_image_has_no_interval_to_print(capsys):
    print_systems(result(2, images=1))
    output = capsys.readouterr().out
    assert "one image" in output and "–" not in output and "within noise" not in output


def test_labels_are_short_and_distinct():
    assert wrap("blip2-opt-2.7b int4", 11) == "blip2-opt-\n2.7b int4"
    assert wrap("  a\n b ", 5) == "a b" and wrap("", 5) == "" and wrap("abcdefgh", 3) == "abc\ndef\ngh"
    names = [*NAMES, "c" * 30 + "1" + "c" * 30, "c" * 30 + "2" + "c" * 30]
    for width in (7, 10, 24):
        short = labels(names, width)
        assert len(set(short)) == len(names)
        assert all(len(line) <= width for label in short for line in label.splitlines())
        assert all(label.count("\n") < 3 for label in short)
    assert labels(names, 40)[:2] == names[:2]
    assert "".join(labels(NAMES, 10)[-1].split()) == "b" * 14 + "…" + "b" * 14


# Files


def test_files_stand_beside_the_table(tmp_path):
    names = ["out.csv", "out.json", "out.png", "out.disagreements.csv"]
    assert output_paths(tmp_path / "out.csv") == [tmp_path / name for name in names]
    assert [path.name for path in output_paths("v1.2")] == ["v1.2", "v1.2.json", "v1.2.png", "v1.2.disagreements.csv"]


def test_files_read_back(tmp_path):
    found = result(5, annotators=3)
    found["disagreements"][0]["said"]["row"] = 'two\r"lines"'
    paths = write_systems(found, tmp_path / "new" / "out.csv")
    assert paths == output_paths(tmp_path / "new" / "out.csv") and sorted(paths) == sorted(paths[0].parent.iterdir())
    assert json.loads(paths[1].read_text()) == found
    table = pd.read_csv(paths[0], dtype=str, keep_default_na=False)
    assert table["name"].tolist() == [*NAMES[:5], BLIND]
    first, row = table.iloc[0], found["systems"][0]
    assert (first["accuracy"], first["accuracy_low"]) == (f"{row['accuracy']:.6f}", f"{row['interval'][0]:.6f}")
    assert (first["parameters"], first["adapter"], first["peak_memory"]) == ("3744761856", "", str(3 * 2**29))
    assert first["vqa_accuracy_high"] == f"{row['vqa_interval'][1]:.6f}"
    assert first["accuracy color"] == f"{row['by_question_type']['color']['accuracy']:.6f}"
    assert table.iloc[-1]["prompt"] == table.iloc[-1]["seconds_per_question"] == ""
    said = pd.read_csv(paths[3], dtype=str, keep_default_na=False)
    assert list(said) == ["row", "image_name", "question", "answer", *NAMES[:4], "row (said)"]
    assert len(said) == len(found["disagreements"]) and said["row (said)"][0] == 'two\r"lines"'


@pytest.mark.parametrize("systems", [1, 2])
def test_files_without_answers_and_without_disagreements(tmp_path, systems):
    found = result(systems, answers=False, times=False)
    found["disagreements"] = []
    paths = write_systems(found, tmp_path / "out.csv")
    assert all(path.stat().st_size for path in paths)
    assert len(paths[3].read_text().splitlines()) == 1


def test_nothing_is_written_when_the_chart_cannot_be_drawn(tmp_path):
    found = result(2)
    found["systems"][0]["accuracy"] = "many"
    with pytest.raises((TypeError, ValueError)):
        write_systems(found, tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


# Chart


@pytest.mark.parametrize(("systems", "options"), [(2, {}), (7, {"times": False}), (3, {"answers": False})])
def test_chart_is_a_picture_of_that_size(systems, options, recwarn):
    image = Image.open(io.BytesIO(draw_systems(result(systems, **options))))
    assert image.format == "PNG" and round(image.info["dpi"][0]) == 150
    assert 1000 < image.width < 2000 and 350 < image.height < 1000
    assert np.asarray(image.convert("L")).std() > 10
    assert not [warning for warning in recwarn if "matplotlib" in str(warning.filename)]
