"""Splits by picture; output files written whole or not at all."""

import json
import random
from pathlib import Path

import pytest

from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.data.splits import check_disjoint, split_by_image, write_split
from blip2vqa.utils.errors import InputError


def make(row: int, name: str, digest: str | None = None) -> Example:
    source = ImageSource(name, path=Path(name))
    return Example(row, source, name, digest or f"digest of {name}", "what?", ("x",), "what", {})


@pytest.fixture
def examples():
    return [make(row, f"{row // 5}.png") for row in range(100)]  # 20 pictures with five questions each


def test_no_picture_stands_on_both_sides(examples):
    train, val = split_by_image(examples, 0.2, seed=42)
    assert len({example.digest for example in val}) == 4
    assert len(val) == 20 and len(train) == 80
    assert check_disjoint(train, val) == 0
    assert [example.row for example in train] == sorted(example.row for example in train)


def test_the_seed_alone_decides(examples):
    _, val = split_by_image(examples, 0.2, seed=42)
    shuffled = random.Random(1).sample(examples, len(examples))
    _, again = split_by_image(shuffled, 0.2, seed=42)
    assert {example.row for example in again} == {example.row for example in val}
    _, other = split_by_image(examples, 0.2, seed=43)
    assert {example.row for example in other} != {example.row for example in val}


def test_one_picture_under_two_names_stays_on_one_side():
    examples = [make(row, f"{row}.png", digest=f"content {row // 2}") for row in range(40)]
    for seed in range(5):
        train, val = split_by_image(examples, 0.3, seed)
        assert check_disjoint(train, val) == 0
        assert len(val) == 12


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_each_side_gets_a_picture(examples, share):
    train, val = split_by_image(examples, share, seed=0)
    assert train and val


def test_what_cannot_be_split(examples):
    with pytest.raises(InputError, match="1 distinct image"):
        split_by_image(examples[:5], 0.2, seed=0)
    for share in (0.0, 1.0, -1, 2):
        with pytest.raises(InputError, match="val_split"):
            split_by_image(examples, share, seed=0)


def test_shared_pictures_are_counted_by_content(examples):
    assert check_disjoint(examples, [make(1, "other name", "digest of 0.png"), make(2, "new")]) == 1


def test_the_split_is_written(examples, tmp_path):
    train, val = split_by_image(examples, 0.2, seed=42)
    write_split(tmp_path / "split.json", train, val)
    written = json.loads((tmp_path / "split.json").read_text())
    assert [len(written[side]) for side in ("train", "val")] == [16, 4]
    assert {entry["image_name"] for entry in written["val"]} == {example.image_name for example in val}
    assert written["val"][0]["digest"].startswith("digest of") and written["val"][0]["questions"] == 5
