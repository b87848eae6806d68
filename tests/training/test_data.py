"""What of the tables is learnt: types of questions, lists of answers, captions of a style or a length."""

import csv
import json
import re

import pytest

from blip2vqa.data.captions import group_by_image
from blip2vqa.training.checks import check
from blip2vqa.utils.errors import InputError
from helpers.finetune_runs import make_run
from helpers.tiny_families import make_vilt

ANSWERS = ["red", "green", "blue", "yellow", "yes", "no", "one"]


def test_types_alone_are_trained(tiny_opt, drawn, tmp_path):
    found = check(make_run(tiny_opt, drawn, tmp_path / "run", "--question_types", "count"))
    assert {example.question_type for example in found.train + found.val} == {"count"}
    assert len(found.train) + len(found.val) == 12


def test_a_list_in_a_file_refuses_other_answers_by_their_rows(tiny_opt, drawn, tmp_path):
    listed = tmp_path / "answers.txt"
    listed.write_text("\n".join([*ANSWERS[:-1], "Red."]))
    run = make_run(tiny_opt, drawn, tmp_path / "run", "--answers", str(listed))
    with pytest.raises(InputError) as caught:
        check(run)
    (problem,) = caught.value.problems
    rows = re.findall(r"row (\d+): 'one'", problem)
    assert "12 rows of the tables have another answer (" in problem and "add it to the list" in problem
    lines = drawn[1].read_text().splitlines()
    assert len(rows) == 5 and all(lines[int(row) - 1].endswith(",one") for row in rows)  # the header is row 1
    listed.write_text("\n".join(["RED", *ANSWERS[1:]]))  # as scores do, it takes no notice of capitals
    assert check(make_run(tiny_opt, drawn, tmp_path / "run", "--answers", str(listed))).answers == ("RED", *ANSWERS[1:])


def test_rare_answers_are_left_out_and_counted(tiny_opt, drawn, tmp_path):
    rare = ("--answers", "table", "--min_answer_count", "8")
    found = check(make_run(tiny_opt, drawn, tmp_path / "run", *rare))
    assert set(found.answers) <= {"one", "no"} and "one" in found.answers
    assert {example.answer for example in found.train} <= set(found.answers)
    assert "rarer ones and" in found.note and "validation questions ask for others" in found.note


def test_rows_too_long_for_the_base_are_listed_and_may_be_left_out(drawn, tmp_path):
    table = tmp_path / "table.csv"
    head, *rows = drawn[1].read_text().splitlines()
    long = [row.replace("?", " " + "and " * 60 + "?") for row in rows[:2]]
    table.write_text("\n".join([head, *long, "0.png,What?,", *rows[2:]]) + "\n")
    base, out = make_vilt(tmp_path / "vilt"), tmp_path / "run"
    given = (base, (drawn[0], table), out)
    with pytest.raises(InputError, match=f"row 4; fill in or delete\n.*all listed in {out}/bad_rows.csv"):
        check(make_run(*given))
    table.write_text(table.read_text().replace("What?,", "What?,red"))
    with pytest.raises(InputError, match=r"row \d: .* 40 positions") as caught:
        check(make_run(*given))
    assert f"2 of 37 rows cannot be used, all listed in {out}/bad_rows.csv" in str(caught.value)
    table.write_text(table.read_text().replace("What?,red", "What?,"))
    found = check(make_run(*given, "--on_bad_row", "skip"))
    with (out / "bad_rows.csv").open() as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["2", "3", "4"]
    assert len(found.train) + len(found.val) == 34
    assert sorted(bad.row for bad in found.rows.skipped) == [2, 3, 4]
    with pytest.raises(InputError, match=r"rows cannot be used.*eval_bad_rows\.csv"):
        check(make_run(base, drawn, out, "--eval_csv_path", str(table)))


def test_karpathys_file_is_split_as_it_says(tiny_opt, drawn, tmp_path):
    images = [
        {"filename": f"{number}.png", "split": split, "sentences": [{"raw": "a red square"}]}
        for number, split in enumerate(("train", "restval", "val", "test"))
    ]
    table = tmp_path / "dataset.json"
    table.write_text(json.dumps({"images": images}))
    options = ("--task", "caption", "--eval_csv_path", str(table), "--max_new_tokens", "10")
    found = check(make_run(tiny_opt, (drawn[0], table), tmp_path / "run", *options))
    assert [example.image_name for example in found.train] == ["0.png", "1.png"]
    assert [example.image_name for example in found.val] == ["2.png"]


@pytest.fixture
def several(drawn, tmp_path):
    """Three captions of different lengths a picture, and two more."""
    table = tmp_path / "captions.csv"
    texts = ("red", "a red square", "it is a red square on nothing")
    rows = [(f"{number}.png", text, "plain") for text in texts for number in range(8)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "caption", "style"), *rows])
    return drawn[0], table


@pytest.mark.parametrize(("choose", "words"), [("shortest", {1}), ("longest", {7}), ("all", {1, 3, 7})])
def test_captions_are_chosen_and_grouped_for_validation(choose, words, several, tiny_opt, tmp_path):
    own = ("--task", "caption", "--captions", choose, "--max_new_tokens", "20")
    found = check(make_run(tiny_opt, several, tmp_path / "run", *own))
    assert {len(example.answer.split()) for example in found.train} == words
    assert len(found.train) == 6 * len(words) and len(found.val) == 2  # a picture is captioned once
    assert all(len(example.answers) == len(words) for example in found.val) and group_by_image(found.val) == found.val


def test_captions_of_a_style_are_found_under_its_name(several, tiny_opt, tmp_path, write):
    mine = write("plain.json", '{"prompt": "x", "captions": "style", "max_new_tokens": 20}')
    own = ("--task", "caption", "--style", mine)
    found = check(make_run(tiny_opt, several, tmp_path / "run", *own))
    assert {example.question_type for example in found.train} == {"plain"} and len(found.train) == 18
    longest = check(make_run(tiny_opt, several, tmp_path / "run", *own, "--captions", "longest"))
    assert {len(example.answer.split()) for example in longest.train} == {7}
    with pytest.raises(InputError, match=r"style 'concise' in no row; column style holds plain \(24\)"):
        argv = ("--task", "caption", "--style", "concise", "--captions", "style", "--max_new_tokens", "20")
        check(make_run(tiny_opt, several, tmp_path / "run", *argv))


def test_what_does_not_go_together(several, tiny_opt, tmp_path):
    def said(*argv: str, base=tiny_opt) -> str:
        with pytest.raises(InputError) as caught:
            check(make_run(base, several, tmp_path / "run", "--max_new_tokens", "20", *argv))
        (problem,) = caught.value.problems
        return problem

    assert "it cannot write captions" in said("--task", "caption", base=make_vilt(tmp_path / "vilt"))
    assert said("--task", "caption", "--captions", "style").startswith("--captions style: needs --style")
    assert "captions have none" in said("--task", "caption", "--prompt", "{question}")
    assert "does not go with --task caption" in said("--task", "caption", "--question_types", "count")
