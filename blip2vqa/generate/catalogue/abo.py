"""The archive of Amazon Berkeley Objects, its listings read one by one.

Its format: https://amazon-berkeley-objects.s3.us-east-1.amazonaws.com/README.md, from which real listings differ:
`product_type` is a list of {"value"} or a text, `node` has `node_name` or `path`, values may be numbers or lack a language.
"""

import codecs
import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import orjson
from isal import igzip, isal_zlib

from blip2vqa.generate.catalogue.abo_layout import Archive
from blip2vqa.generate.rows import Product
from blip2vqa.utils.errors import InputError

ENGLISH = ("en_us", "en_gb", "en_ca", "en_au", "en_in", "en_sg", "en_ae")  # the first is preferred; then any other
FIELDS = ("color", "material", "fabric_type", "item_shape", "pattern", "style", "item_keywords")
ANY_ENGLISH = len(ENGLISH)
MAX_KEYWORDS = 50
FOREIGN_NAME = re.compile(
    rb'"item_name": ?\[(?:(?:, ?)?\{"language_tag": ?"[a-z]{2}_[A-Z]{2}", ?"value": ?"[^\s"\\][^"\\]*(?:\\.[^"\\]*)*"\})+\]'
)
CHUNK, MAX_LINE = 2**18, 2**24  # bytes


def read_products(archive: Archive, counts: Counter) -> Iterator[Product]:
    """The archive's English products with a picture in its table, one by one, in the order of the files.

    Pictures are not looked for on disk, and their names are as the table has them. `counts` is filled on the way:
    "listings", "without an English name or attribute", "without a picture in the archive", "read".
    Raises InputError, with file and line, at the first file that is broken or cut off.
    """
    paths = read_images_table(archive.images_table)
    for file in archive.listings:
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            counts["listings"] += 1
            # A name, and no English anywhere: a whole line like that is not parsed, which would take half of its time.
            is_foreign = b'"en' not in line and FOREIGN_NAME.search(line) and line.rstrip().endswith(b"}")
            listing = {} if is_foreign else _parse(file, number, line)
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
            # The same product is listed once a country: one id, so that all of it lands on one side of a split.
            item_id = _text(listing.get("item_id")) or images[0]
            yield Product(item_id, _product_type(listing.get("product_type")), name, images, texts)


def read_images_table(path: Path) -> dict[str, str]:
    """Image id → path inside the folder of pictures, from images.csv(.gz). Raises InputError."""
    data = b"\n".join(_lines(path))
    try:
        rows = csv.reader(data.decode().split("\n"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line:,}: not UTF-8; download it again") from error
    paths = {}
    try:
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in ("image_id", "path") if name not in header]
        if missing:
            columns = ", ".join(header) or "none"
            raise InputError(f"{path}: no column {' and '.join(missing)}; its columns are {columns}; download it again")
        id_at, path_at = header.index("image_id"), header.index("path")
        for row in rows:
            if row:
                paths[row[id_at]] = row[path_at]
    except (IndexError, csv.Error) as error:
        problem = "fewer cells than the header" if isinstance(error, IndexError) else error
        raise InputError(f"{path}: line {rows.line_num:,}: {problem}; download it again") from error
    if not paths:
        raise InputError(f"{path}: no pictures in it; download it again")
    return paths


def _lines(path: Path) -> Iterator[bytes]:
    """A file's lines without their ends, unpacked where it is gzipped. Raises InputError, saying after which line."""
    number, rest = 0, b""
    try:
        with igzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            while chunk := file.read1(CHUNK):  # twice as fast as line by line, and nothing before a break is lost
                data = rest + chunk
                *lines, rest = (data if number else data.removeprefix(codecs.BOM_UTF8)).split(b"\n")
                for line in lines:
                    number += 1
                    yield line
                if len(rest) > MAX_LINE:
                    raise InputError(f"{path}: line {number + 1:,}: no end in sight; one listing a line is expected")
            if rest:
                yield rest
    except EOFError as error:
        raise InputError(f"{path}: cut off after line {_whole_lines(path):,}; download it again") from error
    except (igzip.BadGzipFile, isal_zlib.error) as error:
        number = _whole_lines(path)
        what = f"damaged after line {number:,}" if number else "not a gzip file, or a damaged one"
        raise InputError(f"{path}: {what}; download it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _whole_lines(path: Path) -> int:
    """How many lines of a damaged gzip file can be read: the standard library, slower, hands out all before the damage."""
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            while chunk := file.read1(CHUNK):
                number += chunk.count(b"\n")
    except (EOFError, OSError, zlib.error):
        pass
    return number


def _parse(path: Path, number: int, line: bytes) -> dict:
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
    """What a listing says in English; nothing when it has names, and none is English. Of another type: as if absent."""
    names = listing.get("item_name")
    english = _english(names)
    if not english and isinstance(names, list) and any(map(_has_value, names)):
        return "", {}
    texts = {}
    for field in FIELDS:
        entries = listing.get(field)
        if entries and (values := _english(entries)):
            if field == "color":
                values = _standardized(entries) + values
            elif field == "item_keywords" and "," in "".join(values):
                values = filter(None, map(str.strip, ",".join(values).split(",")))
            if values := tuple(dict.fromkeys(values)):
                texts[field] = values[:MAX_KEYWORDS] if field == "item_keywords" else values
    return english[0] if english else "", texts


def _has_value(entry: object) -> bool:
    return isinstance(entry, dict) and bool(_text(entry.get("value")))


def _english(entries: object) -> list[str]:
    """The texts of a field in the English preferred, chosen for this field by itself, and those that name no language."""
    try:  # nearly all are of one language throughout: five times as fast
        tag = entries[0]["language_tag"]
        values = [entry["value"] for entry in entries if entry["language_tag"] == tag]
        if len(values) == len(entries):
            return list(filter(None, map(str.strip, values))) if _rank(tag) <= ANY_ENGLISH else []
    except (LookupError, TypeError, AttributeError):
        pass
    return [_text(entry["value"]) for entry in _entries(entries)]


def _entries(entries: object) -> list[dict]:
    """As `_english`, the entries that have a text."""
    kept, best = [], ANY_ENGLISH
    for entry in entries if isinstance(entries, list) else ():
        if _has_value(entry):
            tag = entry.get("language_tag")
            rank = _rank(tag) if isinstance(tag, str) else best
            if rank < best:
                kept, best = [entry for entry in kept if not isinstance(entry.get("language_tag"), str)], rank
            if rank == best:
                kept.append(entry)
    return kept


@lru_cache(1024)
def _rank(tag: str) -> int:
    """0 for the English most preferred, more than ANY_ENGLISH for another language."""
    tag = tag.lower().replace("-", "_")
    if tag in ENGLISH:
        return ENGLISH.index(tag)
    return ANY_ENGLISH if tag == "en" or tag.startswith("en_") else ANY_ENGLISH + 1


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _standardized(entries: object) -> list[str]:
    lists = [entry.get("standardized_values") for entry in _entries(entries)]
    return [text for values in lists if isinstance(values, list) for value in values if (text := _text(value))]


def _product_type(value: object) -> str:
    if isinstance(value, list):
        value = next((entry.get("value") for entry in value if isinstance(entry, dict)), None)
    return value.strip().lower() if isinstance(value, str) else ""


def _node(nodes: object) -> tuple[str, ...]:
    """The names on the way to the product in the category tree, of the last path that it has."""
    for node in reversed(nodes) if isinstance(nodes, list) else ():
        path = _text(node.get("node_name") or node.get("path")) if isinstance(node, dict) else ""
        if names := tuple(dict.fromkeys(name.strip() for name in path.split("/") if name.strip())):
            return names
    return ()


def _images(listing: dict, paths: dict[str, str]) -> tuple[str, ...]:
    """Paths of its pictures that are in the table, the main one first."""
    others = listing.get("other_image_id")
    ids = [listing.get("main_image_id"), *(others if isinstance(others, list) else ())]
    return tuple(dict.fromkeys(paths[id] for id in ids if isinstance(id, str) and paths.get(id)))
