"""Split, tables and provenance: what was asked, what stayed, and on which side."""

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from blip2vqa.generate.files import Files
from blip2vqa.generate.outputs import COLUMNS, as_row, split_of, write_json, write_provenance, write_tables
from blip2vqa.generate.rows import Question
from helpers.asked_questions import AWKWARD, asked, funnel_of_four

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
    assert COLUMNS == ("image_name", "question", "answer", "question_type", "item_id", "product_type", "source")
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
