"""The product archive's listings are read as they are."""

import gzip
import json
import random
import re
import subprocess
import sys
from collections import Counter

import pytest

from blip2vqa.generate.catalogue import abo, abo_files
from blip2vqa.generate.catalogue.abo import read_products
from blip2vqa.generate.catalogue.abo_layout import find_archive
from blip2vqa.generate.rows import Product
from blip2vqa.utils.errors import InputError
from helpers.abo_archive import drawn_archive, image_path, lines, listing, text, write_archive
from helpers.abo_listings import COUNTS, FILES, PRODUCTS, drawn, read, read_line, said
from helpers.paths import DATA


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
    real = abo.parse_listing
    monkeypatch.setattr(abo, "parse_listing", lambda *args: parsed.append(args[1]) or real(*args))
    short = read(folder)
    assert 300 < len(parsed) < 580 and 100 < short[1]["read"] < 500
    parsed.clear()
    monkeypatch.setattr(abo, "FOREIGN_NAME", re.compile(rb"(?!)"))
    assert read(folder) == short and len(parsed) == 600


def test_blank_lines_are_no_listings(tmp_path):
    folder = write_archive(tmp_path, [[listing("B1", "m", item_name=text("Chair"))]], drawn(["m"]))
    (packed,) = folder.rglob("listings_*.json.gz")
    packed.write_bytes(gzip.compress(b"\n" + gzip.decompress(packed.read_bytes()) + b"\n\n \n"))
    products, counts = read(folder)
    assert len(products) == counts["listings"] == 1


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
    monkeypatch.setattr(abo_files, "CHUNK", 7)
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
