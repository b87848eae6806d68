"""Every kind of damage to the product archive is named, with its file and line."""

import gzip
import random
import re
import zlib

import pytest

from blip2vqa.generate.catalogue import abo_files
from blip2vqa.generate.catalogue.abo_files import read_images_table
from blip2vqa.utils.errors import InputError
from helpers.abo_archive import image_path, images_table, lines, listing, text, write_archive, write_packed
from helpers.abo_listings import as_shipped, drawn, problem


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_gzip_file_cut_off_says_after_which_line(tmp_path, share):
    draw = random.Random(0)  # names that do not pack, so that the cut falls between lines
    made = [listing(f"B{number}", "m", item_name=text(draw.randbytes(200).hex())) for number in range(500)]
    folder = write_archive(tmp_path, [[listing("B", "m")], made], drawn(["m"]))
    path = folder / "listings/metadata/listings_1.json.gz"
    data = path.read_bytes()
    cut = data[: int(share * len(data))]
    whole = zlib.decompressobj(31).decompress(cut).count(b"\n")
    assert 0 < whole < 500
    path.write_bytes(cut)
    assert problem(folder) == f"{path}: cut off after line {whole}; download it again"


def test_a_thousand_lines_are_counted_with_a_comma(tmp_path):
    folder = write_archive(tmp_path, [[*([listing("B", "m")] * 1233), "{"]], drawn(["m"]), packed=False)
    assert "listings_0.json: line 1,234: broken JSON" in problem(folder)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"item_id": "B2"', "broken JSON"),
        (b"NaN", "broken JSON"),
        (b'{"item_id": "B\xff2"}', "not UTF-8"),
        (b"[1, 2]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"[" * 5000, "broken JSON"),
        (lines([listing("B", item_name=text("Stuhl", language="de_DE"))])[:-9], "broken JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, what):
    folder = write_archive(
        tmp_path, [[listing("B1", "m")], [listing("B2", "m"), line, listing("B3", "m")]], drawn(["m"])
    )
    assert problem(folder).startswith(f"{folder}/listings/metadata/listings_1.json.gz: line 2: {what}")


def test_a_file_without_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(abo_files, "MAX_LINE", 10_000)
    folder = write_archive(tmp_path, [[listing("B1", "m"), "x" * 300_000]], drawn(["m"]))
    assert "line 2: longer than 10,000 bytes; one listing a line is expected" in problem(folder)


@pytest.mark.parametrize("name", ["listings/metadata/listings_0.json.gz", "images/metadata/images.csv.gz"])
def test_files_that_are_no_gzip_or_damaged_or_unreadable(tmp_path, name):
    path = as_shipped(tmp_path) / name
    data = path.read_bytes()
    path.write_bytes(b"<html>not found</html>")
    assert problem(tmp_path) == f"{path}: not a gzip file, or a damaged one; download it again"
    path.write_bytes(data[:-8] + bytes(8))  # another checksum
    assert re.fullmatch(
        re.escape(f"{path}: ") + r"(damaged after line \d+|not a gzip file.*); download it again", problem(tmp_path)
    )
    path.write_bytes(data[:30] + b"\xff" * 20 + data[50:])
    assert problem(tmp_path).endswith("; download it again")
    path.write_bytes(b"")
    if name.startswith("images"):
        assert "no column image_id and path; its columns are none" in problem(tmp_path)


def test_no_permission(tmp_path, monkeypatch):
    folder = as_shipped(tmp_path)

    def denied(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(abo_files.igzip, "open", denied)
    assert problem(folder) == f"{folder}/images/metadata/images.csv.gz: cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"id,path\nm,00/a.jpg\n", "no column image_id; its columns are id, path"),
        (b"image_id,height\nm,3\n", "no column path; its columns are image_id, height"),
        (b"image_id,height,width,path\n", "no pictures in it"),
        (b"image_id,height,width,path\nm,3,3,00/a.jpg\no,3\n", "line 3: fewer cells than the header"),
        (b"image_id,height,width,path\nm,3,3,00/\xff.jpg\n", "line 2: not UTF-8"),
    ],
)
def test_a_table_of_pictures_that_is_none(tmp_path, content, what):
    path = write_packed(tmp_path / "images.csv", content, packed=True)
    with pytest.raises(InputError, match=re.escape(f"{path}: {what}")):
        read_images_table(path)


def test_the_table_of_pictures(tmp_path):
    path = write_packed(
        tmp_path / "images.csv", images_table(["m", "71-z9+rstM8L"]) + b'\n"q",3,3,"00/q.jpg"\n', packed=True
    )
    assert read_images_table(path) == {
        "m": image_path("m"),
        "71-z9+rstM8L": image_path("71-z9+rstM8L"),
        "q": "00/q.jpg",
    }


def test_a_table_of_pictures_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(abo_files, "MAX_TABLE", 10_000)
    (tmp_path / "images.csv.gz").write_bytes(gzip.compress(b"image_id,path\n" + b"a,b\n" * 10_000))
    with pytest.raises(InputError, match="more than 10,000 bytes"):
        abo_files.read_images_table(tmp_path / "images.csv.gz")
