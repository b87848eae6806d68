"""Captions, several a picture: which are chosen, how they are gathered, and everything wrong named in one go."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from blip2vqa.data.bad_rows import BadRow
from blip2vqa.data.captions import group_by_image, load_captions
from blip2vqa.utils.errors import InputError
from helpers.paths import DATA

HEADER = "image_name,caption,style\n"
TABLE = HEADER + (
    "0.png,a red square on white,Plain\n1.png,two dogs,plain\n0.png,wow  red!,funny\n"
    "1.png,ha two,funny\n 0.png,so very red,\n1.png,two cats,plain\n"
)


def captions(path: str, image_dir: str, **options) -> list[str]:
    examples, skipped = load_captions(path, image_dir, progress=False, **options)
    assert skipped == [] and all(len(example.answers) < 2 for example in examples)
    return [example.answer for example in examples]


def problems(path: str, image_dir: str | None, **options) -> list[str]:
    with pytest.raises(InputError) as raised:
        load_captions(path, image_dir, progress=False, **options)
    assert all("\n" not in problem for problem in raised.value.problems)
    return raised.value.problems


# What is chosen


def test_every_caption_is_an_example_without_a_question(write, image_dir):
    examples, skipped = load_captions(write("t.csv", TABLE), image_dir, progress=False)
    assert skipped == []
    assert [(e.row, e.image_name, e.question, e.answers, e.question_type) for e in examples] == [
        (2, "0.png", "", ("a red square on white",), "Plain"),
        (3, "1.png", "", ("two dogs",), "plain"),
        (4, "0.png", "", ("wow red!",), "funny"),
        (5, "1.png", "", ("ha two",), "funny"),
        (6, " 0.png", "", ("so very red",), "caption"),
        (7, "1.png", "", ("two cats",), "plain"),
    ]
    assert [e.extra for e in examples[:1]] == [{"style": "Plain"}]


def test_one_style_whatever_its_capitals(write, image_dir):
    path = write("t.csv", TABLE)
    expected = ["a red square on white", "two dogs", "two cats"]
    assert captions(path, image_dir, choose="style", style=" PLAIN ") == expected
    spelled = write("s.csv", TABLE.replace("caption,style", " Caption,STYLE"))
    assert captions(spelled, image_dir, choose="style", style="plain") == expected


def test_nothing_is_asked_of_the_rows_of_other_styles(write, image_dir):
    path = write("t.csv", TABLE + "gone.png,x,other\n2.png,,other\n")
    assert captions(path, image_dir, choose="style", style="funny") == ["wow red!", "ha two"]


def test_shortest_and_longest_by_words_then_characters_then_the_first(write, image_dir):
    path = write("t.csv", TABLE)
    assert captions(path, image_dir, choose="shortest") == ["wow red!", "ha two"]
    # "two dogs" and "two cats" are as long
    assert captions(path, image_dir, choose="longest") == ["a red square on white", "two dogs"]


def test_the_same_picture_under_two_names_is_one(write, image_dir):
    Path(image_dir, "copy.png").write_bytes(Path(image_dir, "0.png").read_bytes())
    path = write("t.csv", "image_name,caption\n0.png,a b c\n1.png,x\ncopy.png,a b\n")
    assert captions(path, image_dir, choose="shortest") == ["a b", "x"]
    grouped = group_by_image(load_captions(path, image_dir, progress=False)[0])
    assert [(e.row, e.image_name, e.answers) for e in grouped] == [(2, "0.png", ("a b c", "a b")), (3, "1.png", ("x",))]


def test_grouping_gathers_the_captions_in_order(write, image_dir):
    examples, _ = load_captions(write("t.csv", TABLE), image_dir, progress=False)
    first, second = group_by_image(examples)
    assert first.answers == ("a red square on white", "wow red!", "so very red")
    assert second.answers == ("two dogs", "ha two", "two cats")
    assert first.question_type == "caption"  # of several styles
    assert [e.question_type for e in group_by_image(examples[2:4])] == ["funny", "funny"]
    nameless = [replace(example, digest="") for example in examples[:4]]
    assert [e.answers for e in group_by_image(nameless)] == [first.answers[:2], second.answers[:2]]
    assert group_by_image([]) == []


# Formats


def test_lists_of_captions(write, image_dir):
    records = [
        {"image_name": "0.png", "captions": ["one", " two  words\n", ""]},
        {"image_name": "1.png", "captions": "[a sign] in brackets", "answers": ["no caption"]},
        {"image_name": "1.png", "captions": "[a sign]"},
    ]
    path = write("t.jsonl", "\n".join(map(json.dumps, records)))
    examples, _ = load_captions(path, image_dir, progress=False)
    assert [(e.row, e.answer) for e in examples] == [
        (1, "one"), (1, "two words"), (2, "[a sign] in brackets"), (3, "[a sign]"),
    ]  # fmt: skip
    assert captions(path, image_dir, choose="longest") == ["two words", "[a sign] in brackets"]
    path = write("bad.jsonl", "\n".join(map(json.dumps, [*records, {"image_name": "0.png", "captions": [["x"]]}])))
    assert any("row 4: captions is a list of lists" in problem for problem in problems(path, image_dir))


def test_a_dataset_with_its_own_pictures(tmp_path, image_dir, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.List(datasets.Value("string")),
            "style": datasets.ClassLabel(names=["plain", "funny"]),
        }
    )
    files = [str(Path(image_dir, name)) for name in ("0.png", "1.png", "2.png")]
    columns = {"image": files, "caption": [["a", "b"], ["c"], ["d", "e f"]], "style": [0, 1, 0]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    examples, _ = load_captions(str(tmp_path / "saved"), None, choose="style", style="plain", progress=False)
    assert [(e.image_name, e.answer) for e in examples] == [
        ("0.png", "a"), ("0.png", "b"), ("2.png", "d"), ("2.png", "e f"),
    ]  # fmt: skip
    assert examples[2].image.read_bytes() == Path(image_dir, "2.png").read_bytes()


# Bad input


def test_everything_wrong_is_said_in_one_go(write, image_dir, tmp_path):
    listing = tmp_path / "bad_images.csv"
    path = write("t.csv", HEADER + "0.png,,plain\nbroken.png,x,plain\ngone.png, ,funny\n")
    found = problems(path, image_dir, choose="style", style="grim", bad_images_path=str(listing))
    assert len(found) == 5
    for expected in (
        "style 'grim' in no row; column style holds plain (2), funny (1)", "empty caption in rows 2, 4;",
        "2 of 3 images cannot be used", "image broken.png: not an image", "image gone.png: not found",
    ):  # fmt: skip
        assert any(expected in problem for problem in found)
    assert listing.read_text().startswith("image_name,reason,rows\n")


def test_missing_columns_name_those_there_and_the_flags(write, image_dir):
    (found,) = problems(write("t.csv", "image,captoin\n0.png,x\n"), image_dir)
    assert "no column caption; its columns are image, captoin; rename" in found
    assert "name it by --answer_column" in found
    assert not any("question" in problem for problem in found)
    (problem,) = problems(write("t.csv", "image_name,caption\n0.png,x\n"), image_dir, choose="style", style="plain")
    assert "the table has no column style; its columns are image_name, caption" in problem
    (problem,) = problems(write("t.csv", HEADER + "0.png,,\n1.png,,\n"), image_dir)
    assert "column caption is empty in all 2 rows" in problem
    (problem,) = problems(write("t.csv", HEADER + "0.png,x,\n"), image_dir, choose="style", style="plain")
    assert "column style holds nothing" in problem


def test_choices_are_checked_with_the_table(write, tmp_path, image_dir):
    found = problems(f"{tmp_path}/none.csv", f"{tmp_path}/nowhere", choose="best")
    assert "give one of all, style, shortest, longest" in found[0]
    assert "none.csv: no such file" in found[1] and "nowhere: no such folder" in found[2]
    path = write("t.csv", TABLE)
    assert problems(path, image_dir, choose="style") == ["choose style: say which style"]
    assert "only goes with choose style" in problems(path, image_dir, style="plain")[0]
    assert "no rows" in problems(write("t.csv", HEADER), image_dir, choose="style", style="plain")[0]


def test_bad_images_can_be_skipped(write, image_dir):
    path = write("t.csv", "image_name,caption\n0.png,x\nbroken.png,y\n")
    examples, skipped = load_captions(path, image_dir, on_bad_image="skip", progress=False)
    assert [example.answer for example in examples] == ["x"]
    assert [type(bad) for bad in skipped] == [BadRow] and skipped[0].row == 3


# Real data, where it is at hand

FOLDER = DATA / "captions-tiny-coco"


@pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no real captions at {FOLDER}; set BLIP2VQA_DATA to the folder above it"
)
def test_real_captions():
    sides = []
    for split in ("train", "val"):
        path, folder = str(FOLDER / f"{split}.csv"), str(FOLDER / "images")
        examples, _ = load_captions(path, folder, progress=False)
        assert len(examples) == 250 and {example.question_type for example in examples} == {"caption"}
        images = group_by_image(examples)
        assert [len(image.answers) for image in images] == [5] * 50
        shortest, longest = (captions(path, folder, choose=choice) for choice in ("shortest", "longest"))
        for image, short, long in zip(images, shortest, longest, strict=True):
            counts = [len(caption.split()) for caption in image.answers]
            assert (len(short.split()), len(long.split())) == (min(counts), max(counts))
        sides.append({image.digest for image in images})
    assert not sides[0] & sides[1]
