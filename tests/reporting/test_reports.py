"""Reports of runs, tables of answers and other systems' predictions are made from their files."""

import json
import re

import pandas as pd
import pytest
from PIL import Image

from blip2vqa.config.report import ReportArguments
from blip2vqa.reporting.reports import report_files
from blip2vqa.utils.errors import InputError
from helpers.html_page import Page

QUESTIONS = [(f"{row // 2}.png", f"what is {row}?", "red" if row % 3 else "blue") for row in range(12)]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):  # that of the last two rows is gone
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def run(tmp_path, images):
    """The folder of a run as finetune.py leaves it, as far as reports read it."""
    folder = tmp_path / "run"
    folder.mkdir()
    table = pd.DataFrame(QUESTIONS, columns=["image_name", "question", "answer"])
    table["question_type"] = "what"
    table["base_answer"], table["generated_answer"] = "red", table["answer"]
    table["confidence"], table["probability_right"] = "0.5000", "0.9000"
    table["swapped_answer"], table["blind_answer"] = "red", "blue"
    table.to_csv(folder / "predictions.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"image_dir": str(images)}))
    (folder / "history.json").write_text(json.dumps([{"step": 3, "loss": 0.25}]))
    return folder


def report(*results, **options) -> tuple[str, Page]:
    path = report_files(ReportArguments([str(one) for one in results], **options))
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_a_run_is_shown_with_all_its_systems(run):
    _, page = report(run)
    assert (run / "report.html").exists()
    heads = page.inside("th")
    assert heads[heads.index("truth") + 1 :][:5] == [
        "base model", "base + adapter", "adapter, images swapped", "blind baseline (no image)", "probability",
    ]  # fmt: skip
    assert "100.0% of 12 answers are right: better than the blind baseline, and 33.3 points" in page.said
    assert "blind (no image)" not in page.said  # the run's own baseline stands for it
    assert "5 pictures are shown" in page.said and "0.25" in page.said


def test_a_table_of_answers_is_its_own_table(run, images, tmp_path):
    table = pd.read_csv(run / "predictions.csv", dtype=str)
    table.drop(columns=["base_answer", "swapped_answer", "blind_answer"]).to_csv(tmp_path / "mine.csv", index=False)
    _, page = report(tmp_path / "mine.csv", image_dir=str(images))
    assert (tmp_path / "mine.report.html").exists() and "blind (no image)" in page.said
    assert page.inside("h1") == [str(tmp_path / "mine.csv")]


def test_other_systems_stand_beside_each_other(run, images, tmp_path):
    names = [name for name, *_ in QUESTIONS], [question for _, question, _ in QUESTIONS]
    theirs = pd.DataFrame({"image_name": names[0], "question": names[1], "prediction": "red"}).iloc[::-1]
    theirs.to_csv(tmp_path / "theirs.csv", index=False)
    table = {
        "csv_path": str(run / "predictions.csv"),
        "image_dir": str(images),
        "output_path": str(tmp_path / "o.html"),
    }
    _, page = report(tmp_path / "theirs.csv", run, **table)
    assert page.inside("h1") == ["theirs and run"]
    rows = [set(one.get("data-k", "")) for one in page.all("tr") if "data-n" in one]
    assert rows.count(set("r")) == 8 and rows.count(set("wc")) == 4  # red for blue, where the run was right


def test_without_pictures_the_rows_stay(run):
    (run / "run.json").unlink()
    _, page = report(run)
    assert "0 pictures are shown" in page.said and len([one for one in page.all("tr") if "data-n" in one]) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.iloc[:5], r"predictions .*mine.csv: 7 questions are not among them: "),
        (lambda table: table.drop(columns="generated_answer"), r"mine.csv: no column generated_answer"),
    ],
)
def test_answers_to_other_questions_are_refused(run, tmp_path, change, message):
    change(pd.read_csv(run / "predictions.csv", dtype=str)).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(InputError) as error:
        report(tmp_path / "mine.csv", csv_path=str(run / "predictions.csv"))
    assert re.search(message, str(error.value))


def test_nothing_to_report_is_said(run, tmp_path):
    table = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False).iloc[:0]
    table.to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(InputError, match=r"none\.csv"):
        report(tmp_path / "none.csv")
