"""Read any other catalogue: a table with image_name, and what is known of the product in columns under their usual names."""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from blip2vqa.data.finding import ImageIndex
from blip2vqa.data.images import BadImage
from blip2vqa.data.table_checks import check_table
from blip2vqa.data.tables import read_raw
from blip2vqa.generate.rows import TEXT_FIELDS, Product
from blip2vqa.utils.errors import InputError, raise_all
from blip2vqa.utils.terminal import readable_name

logger = logging.getLogger(__name__)

COLUMNS = {
    "image_name": ("image_name",),
    "item_id": ("item_id",),
    "product_type": ("product_type", "type", "category"),
    "name": ("name", "item_name", "title", "description"),
    "color": ("color", "colour"),
    "material": ("material",),
    "fabric_type": ("fabric", "fabric_type"),
    "item_shape": ("shape", "item_shape"),
    "pattern": ("pattern",),
    "style": ("style",),
    "item_keywords": ("keywords", "item_keywords"),
}
"""What a product has → columns that may hold it, in any case. Of several, the first that is not empty in a row counts."""
NAMED = 3  # rows without a picture that the log names


def read_table_products(csv_path: str | Path, image_dir: str | Path, counts: Counter) -> Iterator[Product]:
    """Yield the products of a table (CSV, JSONL or JSON) in its order; rows of one item_id are one product.

    Pictures are found as in a table of questions. `counts` is filled on the way: "listings" (rows), "without a picture" (rows),
    "read" (products).
    Raises `InputError`: no such file or folder, unreadable, no column image_name, rows where it is empty.
    """
    path = Path(csv_path)
    if not path.is_file():
        raise InputError(f"--csv_path {csv_path}: no such file")
    if not Path(image_dir).is_dir():
        raise InputError(f"--image_dir {image_dir}: no such folder")
    table, problems = check_table(read_raw(str(path)), str(path), require_answers=False, kind=None)
    raise_all(problems)
    aliases = {name: re.sub(r"[\s-]+", "_", name.strip().lower()) for name in table.frame}
    aliases[table.image] = "image_name"
    columns = {
        field: [name for known in names for name in aliases if aliases[name] == known]
        for field, names in COLUMNS.items()
    }
    if unknown := [name for name in aliases if aliases[name] not in chain.from_iterable(COLUMNS.values())]:
        logger.warning("%s: columns not used: %s", path, ", ".join(unknown))
    pictures = ImageIndex(image_dir)
    missing, products = [], {}
    for row, cells in zip(table.frame.index, table.frame.to_dict("records"), strict=True):
        counts["listings"] += 1
        texts = {
            field: next(filter(None, (cells[name].strip() for name in names)), "") for field, names in columns.items()
        }
        image_name = texts["image_name"]
        try:
            texts["image_name"] = readable_name(pictures.find(image_name).relative_to(image_dir).as_posix())
        except BadImage as bad:
            counts["without a picture"] += 1
            missing.append(f"row {row}: {image_name}: {bad.reason}")
            continue
        products.setdefault(texts["item_id"] or image_name, []).append(texts)
    pictures.report(path)
    if missing:
        rest = f"; and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        logger.warning("%s: no picture for %s%s", path, "; ".join(missing[:NAMED]), rest)
    for item_id, rows in products.items():
        counts["read"] += 1
        yield _product(item_id, rows)


def _product(item_id: str, rows: list[dict[str, str]]) -> Product:
    def values(field: str) -> list[str]:
        return list(dict.fromkeys(row[field] for row in rows if row[field]))

    texts = {field: values(field) for field in TEXT_FIELDS}
    words = (word.strip() for text in texts["item_keywords"] for word in re.split("[,;]", text))
    texts["item_keywords"] = list(dict.fromkeys(filter(None, words)))
    product_type = next(iter(values("product_type")), "").lower()
    return Product(
        item_id=item_id,
        product_type=re.sub(r"\W+", "_", product_type).strip("_"),
        name=next(iter(values("name")), ""),
        images=tuple(values("image_name")),
        texts={field: tuple(found) for field, found in texts.items() if found},
    )
