"""Pictures by name: found however the name is written, inside their folder and nowhere else."""

import os
import unicodedata

import pytest

from blip2vqa.data.finding import NEAREST, ImageIndex
from blip2vqa.data.images import BadImage


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for name in ("a.jpg", "ab/abc.jpg", "x/y/deep.png", "one/same.jpg", "two/same.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    (root / "x/y/deep.txt").write_text("notes beside the picture")
    (tmp_path / "secret.jpg").write_bytes(b"picture")
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "x/hidden.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "outdir").symlink_to(tmp_path)
    (root / "inside.jpg").symlink_to(root / "a.jpg")
    (root / "dangling.jpg").symlink_to(root / "nothing.jpg")
    return root


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.jpg", "a.jpg"),
        ("abc.jpg", "ab/abc.jpg"),
        ("deep.png", "x/y/deep.png"),
        ("deep", "x/y/deep.png"),
        ("y/deep.png", "x/y/deep.png"),
        ("x/y/deep", "x/y/deep.png"),
        ("one/same.jpg", "one/same.jpg"),
        ("inside.jpg", "inside.jpg"),
    ],
)
def test_where_a_name_is_looked_up(folder, name, place):
    assert ImageIndex(folder).find(name) == folder / place


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.jpg", "not found"),
        ("z/deep.png", "not found"),
        ("x", "not found"),
        ("same.jpg", r"2 files of this name \(one/same.jpg, two/same.jpg\)"),
        ("../secret.jpg", r"\.\."),
        ("x/../../secret.jpg", r"\.\."),
        (r"..\secret.jpg", r"\.\."),
        ("/etc/hostname", "absolute path of a file outside"),
        ("/home/me/missing.jpg", "not found"),
        ("/home/me/deep.png", "not found"),
        ("/home/me/one/../a.jpg", r"\.\."),
        (r"C:\pictures\b.jpg", "not found"),
        ("out.jpg", "link that leads outside"),
        ("hidden.jpg", "link that leads outside"),
        ("outdir/secret.jpg", "link that leads outside"),
        ("dangling.jpg", "link to nothing"),
        ("a\0.jpg", "not a file name"),
        ("", "not a file name"),
        ("n" * 300 + ".jpg", "cannot be looked up"),
    ],
)
def test_names_that_are_refused(folder, name, reason):
    with pytest.raises(BadImage, match=reason):
        ImageIndex(folder).find(name)


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco" / "images"
    names = [
        "COCO_val2014_000000000042.jpg",
        "COCO_train2014_000000000007.jpg",
        "val/000000000139.jpg",
        "Žluť/Über.JPG",
    ]
    names += ["train/cat.jpg", "val/cat.jpg", "IMG_1.Jpeg", "x[1].png", "5.png"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    return root


DECOMPOSED = unicodedata.normalize("NFD", "žluť/über.jpg")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (r"train\cat.jpg", "train/cat.jpg"),
        (r".\train\cat.jpg", "train/cat.jpg"),
        ("TRAIN/CAT.JPG", "train/cat.jpg"),
        ("img_1.jpeg", "IMG_1.Jpeg"),
        ("img_1", "IMG_1.Jpeg"),
        (DECOMPOSED, "Žluť/Über.JPG"),
        (DECOMPOSED.split("/")[1].upper(), "Žluť/Über.JPG"),
        ("42", "COCO_val2014_000000000042.jpg"),
        ("42.jpg", "COCO_val2014_000000000042.jpg"),
        ("000000000042.jpg", "COCO_val2014_000000000042.jpg"),
        ("COCO_val2014_42", "COCO_val2014_000000000042.jpg"),
        ("139", "val/000000000139.jpg"),
        ("COCO_val2014_000000000139.jpg", "val/000000000139.jpg"),
        ("val/139.jpg", "val/000000000139.jpg"),
        ("0005.png", "5.png"),
        ("/home/me/coco/train/cat.jpg", "train/cat.jpg"),
        (r"D:\data\val\cat.jpg", "val/cat.jpg"),
        (r"\\server\share\val\cat.jpg", "val/cat.jpg"),
        ("~/pictures/x[1].png", "x[1].png"),
        ("file:///home/me/x[1].png", "x[1].png"),
        ("/home/me/42.jpg", "COCO_val2014_000000000042.jpg"),
        ("images/train/cat.jpg", "train/cat.jpg"),
        ("coco/images/IMG_1.jpeg", "IMG_1.Jpeg"),
        ("train2014/COCO_train2014_000000000007.jpg", "COCO_train2014_000000000007.jpg"),
    ],
)
def test_names_that_are_written_otherwise_than_their_files(coco, name, place, caplog):
    index = ImageIndex(coco)
    assert index.find(name) == coco / place
    index.report("t.csv")
    assert [record.getMessage() for record in caplog.records] == [
        f"t.csv: images that are named otherwise than their files: {name} as {place}"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cat.JPG", r"2 files of this name \(train/cat.jpg, val/cat.jpg\)"),
        ("COCO_train2014_42.jpg", "not found"),
        ("42.png", "not found"),
        ("test/139.jpg", "not found"),
        ("/home/me/cat.jpg", "not found"),
        ("train/catt.jpg", "the nearest name there is train/cat.jpg"),
    ],
)
def test_names_that_stay_unclear(coco, name, reason):
    with pytest.raises(BadImage, match=reason):
        ImageIndex(coco).find(name)


def test_names_that_are_written_as_their_files_go_before_others(coco, caplog):
    (coco / "img_1.jpeg").write_bytes(b"another")
    (coco / "val" / "IMG_1.Jpeg").write_bytes(b"a third")
    index = ImageIndex(coco)
    for name in ("IMG_1.Jpeg", "img_1.jpeg", "val/IMG_1.Jpeg"):
        assert index.find(name) == coco / name
    assert index.find("/home/me/val/img_1.jpeg") == coco / "val/IMG_1.Jpeg"
    with pytest.raises(BadImage, match="3 files of this name"):
        index.find("Img_1.jpeg")
    assert index.find(str(coco / "img_1.jpeg")) == coco / "img_1.jpeg"
    index.report("t.csv")
    assert "and 1 more" not in caplog.text and caplog.text.count(" as ") == 2


def test_two_longer_paths_are_not_taken_for_one_file(coco):
    index = ImageIndex(coco)
    assert index.find("/a/x[1].png") == index.find("/A/x[1].PNG") == coco / "x[1].png"
    with pytest.raises(BadImage, match=r"ends as /?a/x\[1\].png does, and both cannot be x\[1\].png"):
        index.find("/b/x[1].png")
    with pytest.raises(BadImage, match="both cannot be"):
        index.find("b/x[1].png")


def test_a_link_is_not_followed_outside_however_it_is_named(folder):
    for name in ("OUT.jpg", "/home/me/x/hidden.jpg", r"X\hidden.jpg"):
        with pytest.raises(BadImage, match="link that leads outside"):
            ImageIndex(folder).find(name)


def test_names_that_are_no_utf8_are_found_by_their_escaped_form(tmp_path):
    place = tmp_path / os.fsdecode(b"sub/caf\xe9.jpg")
    place.parent.mkdir()
    place.write_bytes(b"picture")
    for name in (r"sub/caf\xe9.jpg", r"caf\xe9.jpg", r"caf\xe9"):
        assert ImageIndex(tmp_path).find(name) == place


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for name in ("a.jpg", "A.JPG"):
        with pytest.raises(BadImage, match="neither a file"):
            ImageIndex(tmp_path).find(name)


def test_the_nearest_name_is_looked_up_a_few_times_only(coco):
    index = ImageIndex(coco)
    reasons = []
    for number in range(NEAREST + 2):
        with pytest.raises(BadImage) as caught:
            index.find(f"IMG_1_{number}.jpg")
        reasons.append("nearest" in caught.value.reason)
    assert reasons == [True] * NEAREST + [False] * 2
