"""Reports of runs, tables of answers and other systems' predictions are made from their files."""

import json
import re

import pandas as pd
import pytest
from PIL import Image

from blip2vqa.config.report import ReportArguments
from blip2vqa.reporting.report_files import report_files
from blip2vqa.utils.errors import InputError
from helpers.html_page import Page

HEAD = "question,answer,generated_answer,confidence\nwhat?,a,a,"
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
    assert "1 picture was not found" in page.said and "0.25" in page.said


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
    assert "6 pictures were not found" in page.said and len([one for one in page.all("tr") if "data-n" in one]) == 12


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


def test_a_run_that_learnt_captions_is_shown(run):
    table = pd.DataFrame({"image_name": ["0.png", "1.png"], "question": "", "question_type": "caption"})
    table["answer"] = [json.dumps(["a red cup", "a cup"]), "a lid"]
    table["base_answer"], table["generated_answer"], table["confidence"] = "a dog", ["a cup", "a lid"], "0.5"
    table.to_csv(run / "predictions.csv", index=False)
    (run / "blip2vqa.json").write_text(json.dumps({"task": "caption"}))
    _, page = report(run)
    assert "CIDEr" in page.said and "95%" not in page.said and "a lid" in page.said


def test_pictures_in_the_table_are_shown(run, images, tmp_path):
    table = pd.read_csv(run / "predictions.csv", dtype=str).iloc[:10]
    table["image"] = [(images / name).read_bytes() for name in table.pop("image_name")]
    table.to_parquet(tmp_path / "inside.parquet")
    text, page = report(tmp_path / "inside.parquet")
    assert "not found" not in page.said and text.count("data:image/jpeg") >= 5


def test_rows_never_asked_are_left_out_and_those_without_answers_stay(run, tmp_path):
    table = pd.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False)
    table["status"] = ["bad image: not found", *["ok"] * 11]
    table.loc[5:7, "answer"] = ""
    table.to_csv(tmp_path / "mine.csv", index=False)
    _, page = report(tmp_path / "mine.csv")
    assert len([one for one in page.all("tr") if "data-n" in one]) == 11 and "of 8 answers are right" in page.said


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("official.json", '[{"question_id": 1, "answer": "red"}]', "has no predictions beside right answers"),
        (
            "sure.csv",
            "question,answer,generated_answer,confidence\nwhat?,a,a,inf\n",
            "column confidence: 1 cells are no number",
        ),
        (
            "sure.csv",
            "question,answer,generated_answer,confidence\nwhat?,a,a,97%\n",
            "column confidence: 1 cells are no number",
        ),
    ],
)
def test_what_would_mislead_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        report(tmp_path / name)


def test_a_place_that_cannot_be_written_is_said(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--output_path .*: cannot be written"):
        report(run, output_path=str(tmp_path / "file" / "x.html"))


def test_answers_left_out_of_the_judged_table_are_told_apart(run, tmp_path):
    table = pd.read_csv(run / "predictions.csv", dtype=str)
    table["status"] = ["unsure", *["ok"] * 11]
    table.loc[0, "generated_answer"] = ""
    table.to_csv(tmp_path / "sure.csv", index=False)
    _, page = report(tmp_path / "sure.csv", run)
    assert "91.7% of 12 questions were answered, and 100.0% of these answers are right" in page.said
    assert "left out: not sure enough (1)" in page.said


def test_one_picture_under_two_names_is_one(run, images):
    (images / "1.png").write_bytes((images / "0.png").read_bytes())
    text, page = report(run)
    assert text.count("data:image/jpeg") == 4 and "1 picture was not found" in page.said
