"""Read the listings of the Amazon Berkeley Objects archive as products.

Its format: https://amazon-berkeley-objects.s3.us-east-1.amazonaws.com/README.md, from which real listings differ:
`product_type` is a list of {"value"} or a text, `node` has `node_name` or `path`, values may be numbers or lack a language.
A field of an unexpected type counts as absent.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import orjson

from blip2vqa.generate.catalogue.abo_files import read_images_table, read_lines
from blip2vqa.generate.catalogue.abo_layout import Archive
from blip2vqa.generate.rows import TEXT_FIELDS, Product
from blip2vqa.utils.errors import InputError

ENGLISH = ("en_us", "en_gb", "en_ca", "en_au", "en_in", "en_sg", "en_ae")  # the first is preferred; then any other
ANY_ENGLISH = len(ENGLISH)
MAX_KEYWORDS = 50
FOREIGN_NAME = re.compile(
    rb'"item_name": ?\[(?:(?:, ?)?\{"language_tag": ?"[a-z]{2}_[A-Z]{2}", ?"value": ?"[^\s"\\][^"\\]*(?:\\.[^"\\]*)*"\})+\]'
)


def read_products(archive: Archive, counts: Counter) -> Iterator[Product]:
    """Yield the archive's English products with a picture in its table, one by one, in the order of the files.

    Pictures are not looked for on disk. `counts` is filled on the way: "listings", "without an English name or attribute",
    "without a picture in the archive", "read".
    Raises `InputError`, with file and line, at the first file that is broken or cut off.
    """
    paths = read_images_table(archive.images_table)
    for file in archive.listings:
        for number, line in enumerate(read_lines(file), 1):
            if not line.strip():
                continue
            counts["listings"] += 1
            # A whole line with a name, and no English anywhere, is not parsed: parsing would take as long as all the rest.
            is_foreign = b'"en' not in line and FOREIGN_NAME.search(line) and line.rstrip().endswith(b"}")
            listing = {} if is_foreign else parse_listing(file, number, line)
            name, texts = _name_and_texts(listing)
            if not name and not texts:
                counts["without an English name or attribute"] += 1
                continue
            images = _images(listing, paths)
            if not images:
                counts["without a picture in the archive"] += 1
                continue
            counts["read"] += 1
            if node := _node(listing.get("node")):
                texts["node"] = node
            # A product is listed once a country under one id, which keeps all of it on one side of a split.
            item_id = _as_text(listing.get("item_id")) or images[0]
            yield Product(item_id, _product_type(listing.get("product_type")), name, images, texts)


def parse_listing(path: Path, number: int, line: bytes) -> dict:
    """Parse one line of a file. Raises `InputError`, with file and line, for what is not a JSON object."""
    try:
        listing = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
            what = f"broken JSON ({error})"
        except UnicodeDecodeError:
            what = "not UTF-8"
        raise InputError(f"{path}: line {number:,}: {what}; download it again") from error
    if not isinstance(listing, dict):
        raise InputError(f"{path}: line {number:,}: not a JSON object; one listing a line is expected")
    return listing


def _name_and_texts(listing: dict) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Take the name and the values by field in English; nothing where the listing has names and none is English."""
    names = _english(listing.get("item_name"))
    if not names and _with_text(listing.get("item_name")):
        return "", {}
    texts = {}
    for field in TEXT_FIELDS:
        entries = _english(listing.get(field))
        values = _values(entries)
        if field == "color":
            values = _standardized(entries) + values
        elif field == "item_keywords":
            values = [word for text in values for word in map(str.strip, text.split(",")) if word]
        if values:
            limit = MAX_KEYWORDS if field == "item_keywords" else None
            texts[field] = tuple(dict.fromkeys(values))[:limit]
    return (_values(names) or [""])[0], texts


def _english(entries: object) -> list[dict]:
    """Keep the entries in the most preferred English that this field has, and those that name no language."""
    tagged = [(entry, entry.get("language_tag")) for entry in _with_text(entries)]
    kept = [(entry, _rank(tag) if isinstance(tag, str) else None) for entry, tag in tagged]
    best = min([ANY_ENGLISH, *(rank for _, rank in kept if rank is not None)])
    return [entry for entry, rank in kept if rank in (None, best)]


def _with_text(entries: object) -> list[dict]:
    return [
        entry
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and _as_text(entry.get("value"))
    ]


@lru_cache(1024)
def _rank(tag: str) -> int:
    """Rank a language: 0 is the preferred English, more than ANY_ENGLISH another language."""
    tag = tag.lower().replace("-", "_")
    if tag in ENGLISH:
        return ENGLISH.index(tag)
    return ANY_ENGLISH if tag == "en" or tag.startswith("en_") else ANY_ENGLISH + 1


def _values(entries: list[dict]) -> list[str]:
    return [_as_text(entry["value"]) for entry in entries]


def _standardized(entries: list[dict]) -> list[str]:
    lists = [entry.get("standardized_values") for entry in entries]
    return [text for values in lists if isinstance(values, list) for value in values if (text := _as_text(value))]


def _as_text(value: object) -> str:
    """Turn a value into text, without blanks around it; "" for what is neither text nor number."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _product_type(value: object) -> str:
    if isinstance(value, list):
        value = next((entry.get("value") for entry in value if isinstance(entry, dict)), None)
    return value.strip().lower() if isinstance(value, str) else ""


def _node(nodes: object) -> tuple[str, ...]:
    """Take the names on the way to the product in the category tree, of the last path that has any."""
    for node in reversed(nodes) if isinstance(nodes, list) else ():
        path = _as_text(node.get("node_name") or node.get("path")) if isinstance(node, dict) else ""
        if names := tuple(dict.fromkeys(name.strip() for name in path.split("/") if name.strip())):
            return names
    return ()


def _images(listing: dict, paths: dict[str, str]) -> tuple[str, ...]:
    """Find the paths of the pictures that are in the table, the main one first."""
    others = listing.get("other_image_id")
    ids = [listing.get("main_image_id"), *(others if isinstance(others, list) else ())]
    return tuple(dict.fromkeys(paths[id] for id in ids if isinstance(id, str) and paths.get(id)))
