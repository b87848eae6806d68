"""Checked examples made of tables and pictures, everything wrong with them named in one go."""

import json
from collections import Counter

import pytest

from blip2vqa.data.bad_rows import BadRow
from blip2vqa.data.examples import load_examples
from blip2vqa.utils.errors import InputError
from helpers.paths import DATA

HEADER = "image_name,question,answer\n"


def test_examples(write, image_dir):
    text = "image_name,question,answer,source\n0.png, What color is it? , dark red ,x\n 1 ,How many?,2,y\n"
    examples, skipped = load_examples(write("t.csv", text), image_dir)
    assert skipped == []
    assert [(e.row, e.image_name, e.question, e.answers, e.answer, e.question_type, e.extra) for e in examples] == [
        (2, "0.png", "What color is it?", (" dark red ",), " dark red ", "color", {"source": "x"}),
        (3, " 1 ", "How many?", ("2",), "2", "count", {"source": "y"}),
    ]


def test_the_answer_is_the_most_common_and_of_several_the_first(write, image_dir):
    record = {"image_name": "0.png", "question": "q"}
    lines = [json.dumps(record | {"answers": answers}) for answers in (["", "b", "a", "a"], ["", "", "b", "a"])]
    examples, _ = load_examples(write("t.jsonl", "\n".join(lines)), image_dir)
    assert [example.answer for example in examples] == ["a", "b"]
    assert examples[0].answers == ("", "b", "a", "a")


def test_question_types_from_a_column(write, image_dir):
    text = "image_name,question,answer,question_type,kind\n0.png,How many?,2,number,k\n0.png,How many?,2,,\n"
    path = write("t.csv", text)
    examples, _ = load_examples(path, image_dir)
    assert [example.question_type for example in examples] == ["number", "count"]
    examples, _ = load_examples(path, image_dir, question_type_column="kind")
    assert [example.question_type for example in examples] == ["k", "count"]
    with pytest.raises(InputError, match="no column sort for question types; its columns are image_name, question"):
        load_examples(path, image_dir, question_type_column="sort")


def test_everything_wrong_is_said_in_one_go(write, image_dir, tmp_path):
    text = HEADER + "0.png,,x\nbroken.png,q,\nbroken.png,q,x\n../t.csv,q,x\n"
    listing = tmp_path / "bad_images.csv"
    with pytest.raises(InputError) as raised:
        load_examples(write("t.csv", text), image_dir, question_type_column="kind", bad_images_path=str(listing))
    message = str(raised.value)
    for expected in (
        "empty question in row 2", "empty answer in row 3", "no column kind", f"2 of 3 images cannot be used, all listed "
        f"in {listing}", "image broken.png: not an image", "(rows 3, 4)", 'image ../t.csv: ".." in the name',
    ):  # fmt: skip
        assert expected in message
    assert listing.read_text().splitlines()[0] == "image_name,reason,rows"
    assert "3 4" in listing.read_text()


def test_bad_images_are_named_up_to_ten_and_counted(write, image_dir):
    text = HEADER + "0.png,q,x\n" + "".join(f"gone{number}.png,q,x\n" for number in range(13))
    with pytest.raises(InputError) as raised:
        load_examples(write("t.csv", text), image_dir)
    assert raised.value.problems[0].endswith(
        "13 of 14 images cannot be used; mend them, or leave their rows out with --on_bad_image skip"
    )
    assert raised.value.problems[10].startswith("image gone9.png: not found")
    assert raised.value.problems[11:] == ["and 3 more images"]


def test_bad_images_can_be_skipped(write, image_dir, caplog):
    path = write("t.csv", HEADER + "0.png,q,x\nbroken.png,q,x\nbroken.png,r,x\ngone.png,q,x\n")
    examples, skipped = load_examples(path, image_dir, on_bad_image="skip")
    assert [example.row for example in examples] == [2]
    assert skipped[2] == BadRow(5, "gone.png", "not found in the image folder")
    assert [bad.row for bad in skipped] == [3, 4, 5]
    assert "2 of 3 images cannot be used; their 3 rows are left out" in caplog.text
    with pytest.raises(InputError, match="1 of 1 images cannot be used; is image_dir the right folder"):
        load_examples(write("t.csv", HEADER + "gone.png,q,x\n"), image_dir, on_bad_image="skip")


def test_image_dir_is_checked_with_the_table(write, tmp_path):
    path = write("t.csv", HEADER + "0.png,,x\n")
    with pytest.raises(InputError, match=r"empty in all 1 rows\nimage_dir .*nowhere: no such folder"):
        load_examples(path, f"{tmp_path}/nowhere")
    with pytest.raises(InputError, match="image_dir is not given"):
        load_examples(path, None)


# Real data, where it is at hand

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set BLIP2VQA_DATA to its folder")


@needs_data
@pytest.mark.parametrize(
    ("name", "split", "rows", "images"),
    [
        ("abo-vqa", "train", 8000, 1600),
        ("abo-vqa", "val", 1500, 300),
        ("easy-vqa-dev", "train", 34_691, 3600),
        ("easy-vqa-dev", "val", 3884, 400),
    ],
)
def test_real_tables(name, split, rows, images):
    examples, _ = load_examples(str(DATA / name / f"{split}.csv"), str(DATA / name / "images"), progress=False)
    assert len(examples) == rows
    assert len({example.image_name for example in examples}) == images
    kinds = Counter(example.question_type for example in examples)
    if name == "easy-vqa-dev":
        assert set(kinds) == {"yes/no", "color", "shape"}
    else:
        assert kinds["other"] < rows * 0.02


@needs_data
def test_real_vqa_pair():
    folder = DATA / "vqav2-10ann"
    examples, _ = load_examples(
        str(folder / "questions.json"), str(folder / "images"), str(folder / "annotations.json")
    )
    assert len(examples) == 73
    assert {len(example.answers) for example in examples} == {10}
    assert len({example.digest for example in examples}) == 48
