"""Rows that cannot be used: all listed in a file, and an error or left out as the user says."""

import csv
import json

import pytest

from blip2vqa.data.bad_rows import BadRow, leave_out, report_bad_images
from blip2vqa.data.columns import ColumnNames
from blip2vqa.data.examples import load_examples, load_questions
from blip2vqa.data.several import SEPARATORS
from blip2vqa.utils.errors import InputError

ROWS = [
    ("0.png", "q", "x"),
    ("0.png", " ", "x"),
    ("0.png", "q", True),
    ("", "q", "x"),
    ("1.png", "q", {"yes": 3}),
    ("1.png", ["q", "r"], "x"),
    ("1.png", "", ""),
    ("1.png", "q", ["y", "y", "z"]),
]
REASONS = {
    2: "empty question",
    3: "answer is true or false, not a text, a number or a list of these",
    4: "empty image_name",
    5: "answer is an object, not a text, a number or a list of these",
    6: "question is no text but a list",
    7: "empty question; empty answer",
}


@pytest.fixture
def table(write) -> str:
    rows = [dict(zip(("image_name", "question", "answer"), row, strict=True)) for row in ROWS]
    return write("t.json", json.dumps(rows))


def listed(path) -> dict[int, str]:
    with open(path, newline="") as file:
        return {int(row["row"]): row["reason"] for row in csv.DictReader(file)}


def test_all_are_named_with_their_reasons(table, image_dir, tmp_path):
    out = tmp_path / "bad_rows.csv"
    with pytest.raises(InputError) as raised:
        load_examples(table, image_dir, bad_rows_path=out, progress=False)
    text = str(raised.value)
    assert "empty question in rows 2, 7; fill in or delete" in text
    assert "row 3: answer is true or false" in text and "row 6: question is no text but a list" in text
    assert (
        f"6 of 8 rows cannot be used, all listed in {out}; mend them, or leave them out with --on_bad_row skip" in text
    )
    assert listed(out) == REASONS


def test_they_can_be_left_out(table, image_dir, tmp_path, caplog):
    out = tmp_path / "bad_rows.csv"
    examples, skipped = load_examples(table, image_dir, on_bad_row="skip", bad_rows_path=out, progress=False)
    assert [(one.row, one.answers) for one in examples] == [(1, ("x",)), (8, ("y", "y", "z"))]
    assert {bad.row: bad.reason for bad in skipped} == REASONS == listed(out)
    assert {bad.of for bad in skipped} == {"row"}
    assert "6 of 8 rows cannot be used" in caplog.text
    scored = load_questions(table, on_bad_row="skip", bad_rows_path=out)
    assert [one.row for one in scored] == [1, 4, 8]  # scoring needs no picture


def test_nothing_left_is_an_error(write, image_dir):
    path = write("t.csv", "image_name,question,answer\n0.png,,x\n0.png,,\n")
    with pytest.raises(InputError, match="column question is empty in all 2 rows"):
        load_examples(path, image_dir, on_bad_row="skip", progress=False)


def test_rows_found_later_join_the_list(table, image_dir, tmp_path):
    out = tmp_path / "bad_rows.csv"
    examples, skipped = load_examples(table, image_dir, on_bad_row="skip", bad_rows_path=out, progress=False)
    kept, bad, problems = leave_out(table, examples, [(8, "too long")], "skip", out, skipped)
    assert [one.row for one in kept] == [1] and problems == []
    assert bad == [BadRow(8, "1.png", "too long", "row")]
    assert listed(out) == REASONS | {8: "too long"}
    _, _, problems = leave_out(table, examples, [(8, "too long")], "error", out)
    assert problems[0] == "row 8: too long" and "1 of 2 rows cannot be used" in problems[1]


@pytest.mark.parametrize("mark", SEPARATORS)
def test_several_questions_in_a_cell(write, image_dir, mark):
    rows = [
        ("0.png", f"a?{mark}b?", f"x{mark} y"),
        ("1.png", "c?", "z"),
        ("1.png", f"a?{mark}b?{mark}c?", f"1{mark}2{mark}3"),
    ]
    path = write("t.json", json.dumps([dict(zip(("image", "questions", "answers"), row, strict=True)) for row in rows]))
    with pytest.raises(InputError, match=r"2 of 3 rows hold several questions in questions.*--cell_separator"):
        load_examples(path, image_dir, progress=False)
    examples, _ = load_examples(path, image_dir, columns=ColumnNames(separator=mark), progress=False)
    assert [(one.image_name, one.question, one.answer) for one in examples] == [
        ("0.png", "a?", "x"), ("0.png", "b?", "y"), ("1.png", "c?", "z"),
        ("1.png", "a?", "1"), ("1.png", "b?", "2"), ("1.png", "c?", "3"),
    ]  # fmt: skip
    whole, _ = load_examples(path, image_dir, columns=ColumnNames(separator="none"), progress=False)
    assert len(whole) == 3


def test_cells_with_other_numbers_of_answers_are_named(write, image_dir):
    path = write("t.csv", "image_name,question,answer\n0.png,a|b,x|y\n0.png,a|b,x\n")
    with pytest.raises(InputError, match="row 3: not as many answers as questions"):
        load_examples(path, image_dir, columns=ColumnNames(separator="|"), progress=False)


def test_few_rows_with_several_questions_are_left_whole_and_named(write, caplog):
    rows = "0.png,How many? | What?,four | red\n0.png,How many?,four\n0.png,a ; b?,four\n"
    examples = load_questions(write("t.csv", "image,question,answer\n" + rows))
    assert examples[0].question == "How many? | What?"
    assert "row 2: perhaps several questions in question" in caplog.text


@pytest.mark.parametrize("cell", ["['How many?', 'What?']", '["q"]', "('q', 'r')", "{'q': 1}"])
def test_a_list_of_questions_in_a_cell_is_refused(write, cell):
    path = write(
        "t.csv", 'image,question,answer\n0.png,"{}","[1, 2]"\n0.png,[sic] q?,x\n'.format(cell.replace('"', '""'))
    )
    with pytest.raises(InputError, match=r"row 2: question is no text but (a list|an object)"):
        load_questions(path)


def test_long_names_of_images_are_shortened():
    bad = [BadRow(2, "x" * 500 + ".jpg", "not found"), BadRow(3, "image 2", "no image in this row")]
    _, first, second = report_bad_images("t.csv", bad, 1, "error", None)
    assert first == f"image {'x' * 80}…: not found (row 2)" and second == "image 2: no image in this row (row 3)"
