"""An archive of a few listings, and what is read of it."""

from collections import Counter
from pathlib import Path

import pytest

from blip2vqa.generate.catalogue.abo import read_products
from blip2vqa.generate.catalogue.abo_layout import find_archive
from blip2vqa.generate.rows import Product
from blip2vqa.utils.errors import InputError
from helpers.abo_archive import image_path, listing, picture, text, write_archive

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


def as_shipped(folder):
    return write_archive(folder, FILES, drawn())
