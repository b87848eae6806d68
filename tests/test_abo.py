"""The product archive: found in every layout, its listings read as they are, and every kind of damage named."""

import json
import os
import random
import re
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest

from abo import drawn_archive, image_path, images_table, lines, listing, picture, text, write_archive, write_packed
from blip2vqa.errors import InputError
from blip2vqa.vqa_generation import abo
from blip2vqa.vqa_generation.abo import read_images_table, read_products
from blip2vqa.vqa_generation.abo_layout import find_archive
from blip2vqa.vqa_generation.rows import Product

FILES = [
    [
        listing("B1", "m1", other_image_id=["o1", "gone", "o2"], color=text("Red")),
        listing("B2", "m2", item_name=text("Stuhl", language="de_DE")),
    ],
    [
        listing("B3", "gone"),
        listing("B4", "m4", product_type="SHOES", item_keywords=text("pumps, heels,\npumps", "ari")),
    ],
]
PICTURES = dict.fromkeys(["m1", "m2", "m4", "o1", "o2"])
PRODUCTS = [
    Product("B1", "chair", "Chair", (image_path("m1"), image_path("o1"), image_path("o2")), {"color": ("Red",)}),
    Product("B4", "shoes", "Chair", (image_path("m4"),), {"item_keywords": ("pumps", "heels", "ari")}),
]
COUNTS = {
    "listings": 4,
    "without an English name or attribute": 1,
    "without a picture in the archive": 1,
    "read": 2,
}


def drawn(pictures=PICTURES):
    return {image_id: picture(number) for number, image_id in enumerate(pictures)}


def read(folder: Path, image_dir: Path | None = None) -> tuple[list[Product], dict[str, int]]:
    counts = Counter()
    return list(read_products(find_archive(folder, image_dir), counts)), dict(counts)


def read_line(tmp_path: Path, line: dict | bytes) -> tuple[Product | None, dict[str, int]]:
    """What becomes of one listing, whose pictures m and o are in the archive."""
    folder = write_archive(tmp_path / "one", [[line]], drawn(["m", "o"]))
    products, counts = read(folder)
    assert len(products) == counts.get("read", 0) <= 1
    return (products[0] if products else None), counts


def said(tmp_path: Path, **fields) -> dict[str, tuple[str, ...]]:
    return read_line(tmp_path, listing("B1", "m", **fields))[0].texts


def problem(folder: Path, image_dir: Path | None = None) -> str:
    with pytest.raises(InputError) as raised:
        read(folder, image_dir)
    assert len(raised.value.problems) == 1 and "\n" not in raised.value.problems[0]
    return raised.value.problems[0]


# Layouts


def as_shipped(folder):
    return write_archive(folder, FILES, drawn())


def unpacked(folder):
    return write_archive(folder, FILES, drawn(), packed=False)


def in_folders_of_the_downloads(folder):
    return write_archive(
        folder, FILES, drawn(), listings="abo-listings/listings/metadata", images="abo-images-small/images"
    )


def one_too_high(folder):
    write_archive(folder / "ABO", FILES, drawn())
    return folder


def at_the_listings(folder):
    return write_archive(folder, FILES, drawn()) / "listings"


def at_the_listings_metadata(folder):
    return write_archive(folder, FILES, drawn()) / "listings" / "metadata"


def at_the_pictures(folder):
    return write_archive(folder, FILES, drawn()) / "images" / "small"


def at_one_download(folder):
    return in_folders_of_the_downloads(folder) / "abo-listings"


def at_the_other_download(folder):
    return in_folders_of_the_downloads(folder) / "abo-images-small"


def flat(folder):
    write_archive(folder, FILES, drawn())
    for path in [*(folder / "listings/metadata").iterdir(), folder / "images/metadata/images.csv.gz"]:
        path.rename(folder / path.name)
    return folder


def originals(folder):
    return write_archive(folder, FILES, drawn(), size="original")


def without_metadata_folders(folder):
    write_archive(folder, FILES, drawn(), packed=False, listings="listings")
    (folder / "images/metadata/images.csv").rename(folder / "images/images.csv")
    return folder


LAYOUTS = [
    as_shipped, unpacked, in_folders_of_the_downloads, one_too_high, at_the_listings, at_the_listings_metadata,
    at_the_pictures, at_one_download, at_the_other_download, flat, originals, without_metadata_folders,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_products(tmp_path, layout):
    folder = layout(tmp_path / "archive")
    products, counts = read(folder)
    assert products == PRODUCTS
    assert counts == COUNTS
    image_dir = find_archive(folder).image_dir
    assert image_dir.name == ("original" if layout is originals else "small")
    assert all((image_dir / name).is_file() for product in products for name in product.images)


def test_a_relative_path_inside_the_archive(tmp_path, monkeypatch):
    monkeypatch.chdir(at_the_listings(tmp_path / "archive"))
    assert read(Path("."))[0] == PRODUCTS


def test_small_pictures_go_before_originals(tmp_path):
    folder = write_archive(tmp_path, FILES, drawn())
    write_archive(tmp_path, [], drawn(), size="original")
    assert find_archive(folder).image_dir == folder / "images/small"


def test_small_pictures_go_before_originals_in_their_own_download(tmp_path):
    in_folders_of_the_downloads(tmp_path)
    write_archive(tmp_path, [], drawn(), images="abo-images-original/images", size="original")
    archive = find_archive(tmp_path)
    assert archive.image_dir == tmp_path / "abo-images-small/images/small"
    assert archive.images_table == tmp_path / "abo-images-small/images/metadata/images.csv.gz"


@pytest.mark.parametrize("inside", ["images/small", "images", "."])
def test_pictures_elsewhere_bring_their_table(tmp_path, inside):
    write_archive(tmp_path / "pictures", [], drawn())
    write_packed(tmp_path / "words/listings_0.json", lines(FILES[0] + FILES[1]), packed=True)
    image_dir = tmp_path / "pictures" / inside
    assert read(tmp_path / "words", image_dir) == (PRODUCTS, COUNTS)
    assert find_archive(tmp_path / "words", image_dir).image_dir == tmp_path / "pictures/images/small"


def test_a_folder_of_pictures_of_another_layout_is_taken_at_its_word(tmp_path):
    folder = as_shipped(tmp_path / "archive")
    (tmp_path / "mine").mkdir()
    assert find_archive(folder, tmp_path / "mine").image_dir == tmp_path / "mine"


def test_a_file_there_packed_and_unpacked_is_read_once(tmp_path):
    folder = as_shipped(tmp_path)
    write_packed(folder / "listings/metadata/listings_1.json", b"cut o", packed=False)
    assert read(folder) == (PRODUCTS, COUNTS)


def test_files_in_natural_order_and_no_others(tmp_path):
    names = ["10", "2", "f", "0", "a"]
    for name in names:
        write_packed(
            tmp_path / f"listings/metadata/listings_{name}.json", lines([listing(f"B{name}", "m")]), packed=True
        )
    write_packed(tmp_path / "listings/metadata/listings_0 (1).json", b"a second download", packed=False)
    write_packed(tmp_path / "listings/metadata/._listings_0.json", b"a Mac's own", packed=False)
    write_archive(tmp_path, [], drawn(["m"]))
    assert [product.item_id for product in read(tmp_path)[0]] == ["B0", "B2", "B10", "Ba", "Bf"]


def test_nothing_found_says_what_was_looked_for_and_where(tmp_path):
    (tmp_path / "ABO" / "words").mkdir(parents=True)
    with pytest.raises(InputError) as raised:
        find_archive(tmp_path / "ABO")
    listings, table = raised.value.problems
    assert listings == (
        f"--abo_dir {tmp_path / 'ABO'}: no listings found; looked for listings_*.json.gz or listings_*.json in "
        "listings/metadata, listings, metadata or the folder itself, there, one folder down; unpack abo-listings.tar and "
        "abo-images-small.tar there"
    )
    assert "no table of pictures found; looked for images.csv.gz or images.csv in images/metadata" in table


def test_archives_not_unpacked_are_named(tmp_path):
    (tmp_path / "abo-listings.tar").touch()
    (tmp_path / "abo-images-small.tar").touch()
    with pytest.raises(InputError) as raised:
        find_archive(tmp_path)
    for found in raised.value.problems:
        for name in ("abo-listings.tar", "abo-images-small.tar"):
            assert f"tar -xf {tmp_path / name} -C {tmp_path}" in found
    with pytest.raises(InputError, match=re.escape("unpack it (tar -xf abo-listings.tar) and name the folder")):
        find_archive(tmp_path / "abo-listings.tar")


def test_two_archives_are_ambiguous(tmp_path):
    as_shipped(tmp_path / "one")
    as_shipped(tmp_path / "two")
    found = problem(tmp_path)
    assert "listings in 2 places" in found and str(tmp_path / "one/listings/metadata") in found and "/two/" in found


def test_a_folder_of_another_name_is_not_left(tmp_path):
    as_shipped(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="no listings found"):
        find_archive(tmp_path / "mine")


def test_folders_that_are_not_there(tmp_path):
    assert problem(tmp_path / "no") == f"--abo_dir {tmp_path / 'no'}: no such folder"
    assert problem(as_shipped(tmp_path), tmp_path / "no") == f"--image_dir {tmp_path / 'no'}: no such folder"


def test_a_table_without_pictures(tmp_path):
    write_archive(tmp_path, FILES, {})
    found = problem(tmp_path)
    assert found.startswith(f"{tmp_path}/images/metadata/images.csv.gz: no pictures found beside it")
    assert "--image_dir" in found


# Listings


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["de_DE", "en_GB", "en_US", "en_IN"], "en_US"),
        (["en_AE", "en_SG", "en_IN", "en_AU", "en_CA", "en_GB"], "en_GB"),
        (["en_AE", "en_SG", "en_IN", "en_AU"], "en_AU"),
        (["en_ZA", "en_AE", "fr_FR"], "en_AE"),
        (["fr_FR", "en_ZA"], "en_ZA"),
        (["en"], "en"),
        (["EN-us", "en_GB"], "EN-us"),
    ],
)
def test_the_english_preferred(tmp_path, tags, expected):
    line = listing("B1", "m", item_name=[{"language_tag": tag, "value": tag} for tag in tags])
    assert read_line(tmp_path, line)[0].name == expected


def test_each_field_has_its_own_language_and_all_its_values(tmp_path):
    texts = said(
        tmp_path,
        material=[
            *text("Holz", language="de_DE"),
            *text("Oak", "Pine", " Oak ", language="en_GB"),
            *text("Teak", language="en_IN"),
        ],
        pattern=text("Striped", language="en_IN"),
        style=text("Moderne", language="fr_FR"),
    )
    assert texts == {"material": ("Oak", "Pine"), "pattern": ("Striped",)}


def test_a_value_of_no_language_counts_in_any(tmp_path):
    texts = said(
        tmp_path,
        material=text("Oak", language=None) + text("Pine") + text("Teak", language="en_GB"),
        style=text("Moderne", language="fr_FR") + text("Modern", language=None),
        pattern=[{"language_tag": None, "value": "Plain"}],
    )
    assert texts == {"material": ("Oak", "Pine"), "style": ("Modern",), "pattern": ("Plain",)}


def test_an_empty_value_does_not_hide_another_language(tmp_path):
    assert said(tmp_path, color=text("  ") + text("Red", language="en_GB"), style=text("")) == {"color": ("Red",)}


@pytest.mark.parametrize(
    ("fields", "is_english"),
    [
        ({"item_name": text("Stuhl", language="de_DE"), "color": text("Red")}, False),
        ({"item_name": text("Stuhl", language="de_DE") + text("Chair", language="en_IN")}, True),
        ({"item_name": text("Chair", language=None)}, True),
        ({"item_name": None, "color": text("Red", language="en_GB")}, True),
        ({"item_name": text("", language="de_DE"), "color": text("Red")}, True),
        ({"item_name": None, "color": text("Rot", language="de_DE")}, False),
        ({"item_name": None}, False),
    ],
)
def test_what_makes_a_listing_english(tmp_path, fields, is_english):
    product, counts = read_line(tmp_path, listing("B1", "m", **fields))
    assert (product is not None) is is_english
    assert counts == {"listings": 1, "read" if is_english else "without an English name or attribute": 1}


def test_a_listing_that_is_not_parsed_counts_as_one_that_is(tmp_path, monkeypatch):
    """Lines in other languages are told by their bytes; nothing may differ from parsing every line."""
    draw = random.Random(0)
    fields = ("item_name", "color", "material", "item_keywords")
    values = ["x", "Stuhl", "", " ", 5, 'ein "Stuhl"', "\\", '"item_name": []', "entre", "größe"]

    def texts(tags):
        entries = [text(draw.choice(values), language=draw.choice(tags)) for _ in range(draw.randint(0, 2))]
        return [entry for (entry,) in entries]

    made = []
    for number in range(600):
        tags = draw.choice(
            [["de_DE"], ["de_DE", "es_MX"], ["de_DE", None], ["de_DE", "en_US", "en_GB", None], ["EN-gb", "de"]]
        )
        made.append(listing(f"B{number}", "m", **{field: texts(tags) for field in fields}))
    folder = write_archive(tmp_path, [made], drawn(["m"]))
    parsed = []
    monkeypatch.setattr(abo, "_parse", lambda *args, parse=abo._parse: parsed.append(args[1]) or parse(*args))
    short = read(folder)
    assert 300 < len(parsed) < 580 and 100 < short[1]["read"] < 500
    parsed.clear()
    monkeypatch.setattr(abo, "FOREIGN_NAME", re.compile(rb"(?!)"))
    assert read(folder) == short and len(parsed) == 600


def test_standardized_colors_come_first(tmp_path):
    color = text("Spinnsol Cocoa", standardized_values=["Brown", 5, None]) + text("Crimson", standardized_values="Red")
    color += text("Braun", language="de_DE", standardized_values=["Multi"]) + text("Brown", standardized_values=["Red"])
    assert said(tmp_path, color=color) == {"color": ("Brown", "5", "Red", "Spinnsol Cocoa", "Crimson")}


def test_keywords_are_split_and_limited(tmp_path):
    assert said(tmp_path, item_keywords=text(" , ,", ",")) == {}
    many = said(tmp_path, item_keywords=text(*(f"word {n}, other {n}" for n in range(40))))["item_keywords"]
    assert many == tuple(f"{kind} {n}" for n in range(25) for kind in ("word", "other"))


def test_values_may_be_numbers(tmp_path):
    texts = said(tmp_path, pattern=text(3), item_keywords=text("22", 14, 1.5, True), style=text(False, None))
    assert texts == {"pattern": ("3",), "item_keywords": ("22", "14", "1.5")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"value": "SHOES"}], "shoes"),
        ("SHOES", "shoes"),
        (["SHOES"], ""),
        ([], ""),
        (None, ""),
        ({"value": "X"}, ""),
        ([{"value": 5}], ""),
    ],
)
def test_shapes_of_product_type(tmp_path, value, expected):
    assert read_line(tmp_path, listing("B1", "m") | {"product_type": value})[0].product_type == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"node_id": 1, "node_name": "/Categories/Shoes/Court Shoes"}], ("Categories", "Shoes", "Court Shoes")),
        ([{"node_id": 1, "path": "Shoes/ Women's Shoes /"}], ("Shoes", "Women's Shoes")),
        ([{"node_name": "/A/B"}, {"node_name": "/C/D"}], ("C", "D")),
        ([{"node_name": "/A/B"}, {"node_id": 5}, None], ("A", "B")),
        ("/A/B", None),
        ([{"node_name": "//"}], None),
    ],
)
def test_shapes_of_node(tmp_path, value, expected):
    assert said(tmp_path, node=value).get("node") == expected


WRONG = [
    None, 5, True, "text", [], {}, [None, 5, "text", [], {}], [{"value": {}, "language_tag": []}],
    [{"value": ["x"], "language_tag": {}}, {"value": None}], {"0": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_field_of_another_type_is_absent(tmp_path, wrong):
    plain = listing("B1", "m", color=text("Red"))
    for field in ("material", "item_keywords", "style", "node", "other_image_id", "standardized_values", "brand"):
        assert read_line(tmp_path, plain | {field: wrong})[0].texts == {"color": ("Red",)}, field
    for field in ("item_name", "product_type", "item_id", "color"):
        product, _ = read_line(tmp_path, plain | {field: wrong})
        assert product.images == (image_path("m"),), field
    assert read_line(tmp_path, plain | {"main_image_id": wrong})[1]["without a picture in the archive"] == 1


def test_other_pictures_where_the_main_one_is_missing(tmp_path):
    line = listing("B1", "gone", other_image_id=["o", "o", 5, "m"])
    assert read_line(tmp_path, line)[0].images == (image_path("o"), image_path("m"))


def test_a_listing_without_an_id_takes_its_picture_for_one(tmp_path):
    assert read_line(tmp_path, listing("", "m"))[0].item_id == image_path("m")
    assert read_line(tmp_path, listing("", "m") | {"item_id": 7})[0].item_id == "7"


def test_blank_lines_byte_order_marks_and_windows_line_ends(tmp_path):
    folder = write_archive(tmp_path, [[]], drawn(["m", "o"]), packed=False)
    content = lines([listing("B1", "m"), "", "  ", listing("B2", "o", item_name=text("Größe"))])
    (folder / "listings/metadata/listings_0.json").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")[:-2])
    table = folder / "images/metadata/images.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    products, counts = read(folder)
    assert [(product.item_id, product.name, product.images) for product in products] == [
        ("B1", "Chair", (image_path("m"),)), ("B2", "Größe", (image_path("o"),)),
    ]  # fmt: skip
    assert counts == {"listings": 2, "read": 2}


def test_lines_longer_than_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(abo, "CHUNK", 7)
    for packed in (True, False):
        assert read(write_archive(tmp_path / str(packed), FILES, drawn(), packed=packed)) == (PRODUCTS, COUNTS)


def test_read_lazily_and_the_same_each_time(tmp_path):
    folder = drawn_archive(tmp_path / "archive", products=30, pictures=2, files=3)
    first = read(folder)
    assert read(folder) == first and first[1] == {"listings": 30, "read": 30}
    assert [product.item_id for product in first[0][:3]] == ["B000000000", "B000000003", "B000000006"]
    assert all(len(product.images) == 2 and product.texts["color"] for product in first[0])

    (folder / "listings/metadata/listings_1.json.gz").write_bytes(b"broken")
    counts = Counter()
    products = read_products(find_archive(folder), counts)
    assert counts == {}
    assert next(products) == first[0][0] and counts == {"listings": 1, "read": 1}
    with pytest.raises(InputError):
        list(products)
    assert counts == {"listings": 10, "read": 10}


# Damage


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
    monkeypatch.setattr(abo, "MAX_LINE", 10_000)
    folder = write_archive(tmp_path, [[listing("B1", "m"), "x" * 300_000]], drawn(["m"]))
    assert "line 2: no end in sight" in problem(folder)


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

    monkeypatch.setattr(abo.igzip, "open", denied)
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


# Real listings

DATA = Path(os.environ.get("BLIP2VQA_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.skipif(
    not (DATA / "abo-meta").is_dir(), reason=f"no real listings at {DATA}; set BLIP2VQA_DATA to its folder"
)
def test_real_listings(tmp_path):
    excerpt = (DATA / "abo-meta/listings_excerpt.json").read_bytes().splitlines()
    ids = [id for line in map(json.loads, excerpt) for id in (line["main_image_id"], *line["other_image_id"])]
    folder = write_archive(tmp_path, [excerpt], drawn(dict.fromkeys(ids)))
    (shoes, turmeric), counts = read(folder)
    assert counts == {"listings": 5, "read": 2, "without an English name or attribute": 3}
    assert shoes == Product(
        item_id="B06X9WQGQP",
        product_type="shoes",
        name="find. Women’s Ari Heeled Closed-Toe Heels",
        images=tuple(map(image_path, ["81iZlv3bjpL", "91mIRxgziUL", "91eqBkW06wL", "A1BHZSKNbkL"])),
        texts={"style": ("Closed-Toe Pumps",), "node": ("Categories", "Shoes", "Women's Shoes", "Court Shoes")},
    )
    assert turmeric.name.startswith("Amazon Elements Turmeric Root Extract 500 mg") and len(turmeric.images) == 10
    assert turmeric.texts["item_keywords"][:3] == (
        "Amazon Elements",
        "Amazon Elements vitamins",
        "Amazon Elements supplements",
    )
    assert len(turmeric.texts["item_keywords"]) == len(set(turmeric.texts["item_keywords"])) == 20


MINI = DATA.parent / "tools" / "make_abo_mini.py"


@pytest.mark.skipif(not (MINI.is_file() and (DATA / "abo-vqa").is_dir()), reason=f"no real photographs at {DATA}")
def test_real_photographs_in_the_layout_of_the_archive(tmp_path):
    subprocess.run([sys.executable, MINI, tmp_path], check=True, capture_output=True)
    products, counts = read(tmp_path)
    assert counts == {
        "listings": 1685,
        "read": 1680,
        "without an English name or attribute": 3,
        "without a picture in the archive": 2,
    }
    assert len({product.item_id for product in products}) == 1680
    assert all((tmp_path / "images/small" / product.images[0]).is_file() and product.name for product in products)
