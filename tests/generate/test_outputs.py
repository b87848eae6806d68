"""Files, split, tables and provenance: where they stand, which are not written over, what was asked and what stayed."""

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from blip2vqa.generate.outputs import Files, as_row, split_of, write_json, write_provenance, write_tables
from blip2vqa.generate.rows import Question
from blip2vqa.utils.errors import InputError
from helpers.asked_questions import AWKWARD, asked, funnel_of_four

COLUMNS = ("image_name", "question", "answer", "question_type", "item_id", "product_type", "source")
SIDES = {0: "train", 1: "val", 2: "test"}


def pictures(*sizes: int) -> list[Question]:
    """Two questions about each picture of groups of these sizes."""
    names = [(f"{number:03}/{view}.jpg", number) for number, size in enumerate(sizes) for view in range(size)]
    return [asked(name, text, group=group) for name, group in names for text in ("What is this?", "What is it?")]


def on_each_side(questions, *shares, seed=42) -> tuple[int, int, int]:
    """Pictures of train, val and test."""
    sides = split_of(questions, *shares, seed)
    counts = Counter(sides[group] for _, group in {(q.item.image_name, q.item.group) for q in questions})
    return counts["train"], counts["val"], counts["test"]


@pytest.mark.parametrize(
    ("sizes", "shares", "expected"),
    [
        ([1] * 100, (0.1, 0.1), (80, 10, 10)),
        ([1] * 100, (0.25, 0.05), (70, 25, 5)),
        ([1] * 100, (0, 0.2), (80, 0, 20)),
        ([1] * 100, (0.2, 0), (80, 20, 0)),
        ([1] * 100, (0, 0), (100, 0, 0)),
        ([2] * 50, (0.1, 0.3), (60, 10, 30)),
        ([1] * 14, (0.1, 0.2), (10, 1, 3)),  # 1.4 and 2.8
        ([1, 1, 1], (0.3, 0.3), (1, 1, 1)),
        ([1, 1, 1], (0.1, 0.1), (3, 0, 0)),
        ([1, 1], (0.5, 0), (1, 1, 0)),
        ([1], (0.1, 0.1), (1, 0, 0)),
        ([], (0.1, 0.1), (0, 0, 0)),
        # a group as large as that would be further from the share than none
        ([50], (0.1, 0.1), (50, 0, 0)),
        ([3, 3, 3], (0.1, 0.1), (9, 0, 0)),
        ([50] + [1] * 50, (0.1, 0.1), (80, 10, 10)),
    ],
)
def test_the_sides_have_their_shares_of_the_pictures(sizes, shares, expected):
    for seed in range(8):
        assert on_each_side(pictures(*sizes), *shares, seed=seed) == expected


def test_groups_of_several_sizes_are_kept_whole_and_come_close():
    for seed in range(20):
        questions = pictures(*(random.Random(seed).choice([1, 1, 2, 3, 5]) for _ in range(60)))
        sides = split_of(questions, 0.2, 0.1, seed)
        assert set(sides) == set(range(60)) and set(sides.values()) == {"train", "val", "test"}
        total = len(questions) // 2
        train, val, test = on_each_side(questions, 0.2, 0.1, seed=seed)
        assert train + val + test == total
        assert abs(val - 0.2 * total) <= 2.5 and abs(test - 0.1 * total) <= 2.5  # half of the largest group


def test_the_seed_draws_the_split_whatever_the_order_and_the_numbers_of_the_groups():
    questions = pictures(*[1, 2, 1, 3] * 10)
    sides = split_of(questions, 0.2, 0.2, seed=1)
    assert split_of(random.Random(0).sample(questions, len(questions)), 0.2, 0.2, seed=1) == sides
    renamed = [replace(question, item=replace(question.item, group=99 - question.item.group)) for question in questions]
    assert {99 - group: side for group, side in split_of(renamed, 0.2, 0.2, seed=1).items()} == sides
    assert len({tuple(sorted(split_of(questions, 0.2, 0.2, seed).items())) for seed in range(10)}) == 10


@pytest.fixture
def awkward() -> list[Question]:
    """Texts that a table must quote, on all three sides."""
    return [
        asked(f'{number}, "é".jpg', text, f"{text}!", "yes/no", number % 3, f"B,{number}")
        for number, text in enumerate(AWKWARD)
    ]  # fmt: skip


def read_both_ways(path: Path) -> list[dict[str, str]]:
    """Rows as the csv module reads them, which must be as pandas does."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert tuple(frame) == tuple(reader.fieldnames) == COLUMNS
    assert frame.to_dict("records") == rows
    return rows


def test_tables_are_read_back_as_they_were_and_the_splits_make_up_the_whole(tmp_path, awkward):
    files = Files(tmp_path / "new" / "vqa.csv")
    write_tables(files, awkward, SIDES)
    assert files.table.read_bytes().startswith(
        b"image_name,question,answer,question_type,item_id,product_type,source\n"
    )
    rows = read_both_ways(files.table)
    assert rows == [
        {
            "image_name": f'{number}, "é".jpg', "question": text, "answer": f"{text}!", "question_type": "yes/no",
            "item_id": f"B,{number}", "product_type": "SHOES", "source": "templates",
        }
        for number, text in enumerate(AWKWARD)
    ]  # fmt: skip
    for number, split in SIDES.items():
        assert read_both_ways(getattr(files, split)) == rows[number::3]
    assert sorted(path.name for path in files.table.parent.iterdir()) == [
        "vqa.csv", "vqa.test.csv", "vqa.train.csv", "vqa.val.csv",
    ]  # fmt: skip


def test_a_side_without_questions_has_no_table(tmp_path):
    files = Files(tmp_path / "vqa.csv")
    write_tables(files, [asked()], {0: "train"})
    assert files.train.exists() and not files.val.exists() and not files.test.exists()


def test_the_table_comes_last_so_that_it_stands_for_all(tmp_path):
    files = Files(tmp_path / "vqa.csv")
    files.train.mkdir()  # nothing can be written there
    with pytest.raises(OSError):
        write_tables(files, [asked()], {0: "train"})
    assert not files.table.exists()


def test_provenance_has_each_question_once_and_a_side_for_what_was_kept(tmp_path):
    funnel, files = funnel_of_four(), Files(tmp_path / "vqa.csv")
    write_provenance(files, funnel.left + funnel.dropped, {0: "train", 1: "val"})
    text = files.provenance.read_text(encoding="utf-8")
    assert AWKWARD[2] in text, "readable, not escaped"
    rows = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    assert [(row["image_name"], row["kept"], row["split"]) for row in rows] == [
        ("a.jpg", True, "train"), ("b.jpg", True, "val"), ("a.jpg", False, None), ("c.jpg", False, None),
    ]  # fmt: skip
    assert [row["verdicts"] for row in rows] == [question.verdicts for question in funnel.left + funnel.dropped]
    assert rows[2] == as_row(funnel.dropped[0]) | {
        "split": None, "kept": False, "verdicts": {"single word": "more than one word"}, "raw_answer": "Dark red.",
        "prompt_hash": "ab", "image_sha256": "digest of a.jpg",
    }  # fmt: skip


def test_one_json_file_holds_summary_and_rows(tmp_path, awkward):
    path = tmp_path / "vqa.json"
    write_json(str(path), {"seed": 42}, awkward, SIDES)
    rows = [as_row(question) | {"split": SIDES[question.item.group]} for question in awkward]
    assert json.loads(path.read_text(encoding="utf-8")) == {"summary": {"seed": 42}, "rows": rows}


@pytest.mark.parametrize("name", ["vqa.csv", "my.data.v2.csv", "VQA.CSV"])
def test_files_stand_beside_the_table_under_its_name(tmp_path, name):
    files, stem = Files(tmp_path / name), name[:-4]
    endings = {
        "train": ".train.csv", "val": ".val.csv", "test": ".test.csv", "provenance": ".jsonl", "card": ".md", "chart": ".png",
        "preview": ".html", "responses": ".responses.jsonl", "run": ".run.json",
    }  # fmt: skip
    assert {kind: getattr(files, kind) for kind in endings} == {
        kind: tmp_path / (stem + end) for kind, end in endings.items()
    }
    assert files.table == tmp_path / name
    with pytest.raises(AttributeError, match="nonsense"):
        files.nonsense  # noqa: B018


def test_a_finished_table_is_not_overwritten_unasked(tmp_path):
    files, other = Files(tmp_path / "vqa.csv"), tmp_path / "all.json"
    files.responses.write_text("{}")
    files.check(overwrite=False)
    files.card.write_text("somebody's notes")
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: vqa\.md is already there.*--overwrite true"):
        files.check(overwrite=False)
    files.table.write_text("done")
    other.write_text("{}")
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: is already there, finished.*--overwrite true"):
        files.check(overwrite=False)
    with pytest.raises(InputError) as caught:
        files.check(overwrite=False, json_output=str(other))
    assert len(caught.value.problems) == 2 and "--json_output" in caught.value.problems[1]
    files.check(overwrite=True, json_output=str(other))
    assert files.table.read_text() == "done"
    assert len(list(tmp_path.iterdir())) == 4, "nothing is left of the check"
    files.unfinished.write_text("2 of 3 pictures have no answer yet")
    files.check(overwrite=False, json_output=str(other))


@pytest.mark.parametrize("name", ["vqa.csv", "vqa.train.csv", "vqa.jsonl", "vqa.run.json", "vqa.responses.jsonl"])
def test_no_file_of_a_data_set_stands_for_two_things(name, tmp_path):
    files = Files(tmp_path / "vqa.csv")
    with pytest.raises(InputError, match=r"--json_output .*: is a file of --output_path"):
        files.check(overwrite=True, json_output=str(tmp_path / name))


def test_the_catalogue_is_not_written_over(tmp_path):
    catalogue = tmp_path / "mine.jsonl"
    catalogue.write_text("{}")
    with pytest.raises(InputError, match=r"would write over .*mine\.jsonl, which it reads"):
        Files(tmp_path / "mine.csv").check(overwrite=True, inputs=[str(catalogue), None])
    with pytest.raises(InputError, match=r"would write over .*all\.json, which it reads"):
        Files(tmp_path / "vqa.csv").check(True, str(tmp_path / "all.json"), [str(tmp_path / "all.json")])


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "vqa.csv").mkdir()
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: is a folder; name a file"):
        Files(tmp_path / "vqa.csv").check(overwrite=True)


def test_a_folder_that_cannot_be_written_to_is_told_of_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--output_path .*vqa\.csv: its folder cannot be written to: ") as caught:
        Files(tmp_path / "file" / "new" / "vqa.csv").check(overwrite=True)
    assert len(caught.value.problems) == 1
