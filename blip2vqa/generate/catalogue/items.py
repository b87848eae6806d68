"""Read whichever catalogue is named, and choose the pictures to ask about."""

import logging
from collections import Counter
from pathlib import Path

from blip2vqa.config.generate import CatalogueArguments
from blip2vqa.generate.catalogue.abo import read_products
from blip2vqa.generate.catalogue.abo_layout import find_archive
from blip2vqa.generate.catalogue.selecting import ABOVE_SHARE, UNSAID, choose_items
from blip2vqa.generate.catalogue.table_catalogue import read_table_products
from blip2vqa.generate.rows import Item
from blip2vqa.utils.errors import InputError

logger = logging.getLogger(__name__)


def read_items(args: CatalogueArguments, seed: int) -> tuple[list[Item], dict]:
    """Read the catalogue; returns the pictures to ask about, and the summary's `catalogue`: what was read and left out.

    Raises `InputError` where no picture is usable.
    """
    counts: Counter = Counter()
    if args.abo_dir:
        archive = find_archive(args.abo_dir, args.image_dir)
        products, image_dir, kind = read_products(archive, counts), archive.image_dir, "abo"
    else:
        products = read_table_products(args.csv_path, args.image_dir, counts)
        image_dir, kind = Path(args.image_dir), "table"
    items = choose_items(products, image_dir, args, seed, counts)
    source = args.abo_dir or args.csv_path
    if not items:
        why = "; ".join(f"{reason}: {number:,}" for reason, number in counts.items() if number)
        advice = f"check the folder of the pictures, {image_dir}"
        if counts["not clear what it is"] >= counts["read"] > 0:
            advice = "give columns such as name or product_type, in English, that say what the pictures show"
        raise InputError(f"{source}: no usable picture ({why}); {advice}")
    numbers = {name: counts.pop(name, 0) for name in ("listings", "read", "pictures")}
    unsaid = {reason: counts.pop(reason) for reason in UNSAID if counts[reason]}
    if above := counts[ABOVE_SHARE]:
        logger.warning(
            "%d of the pictures of %d products are of product types above --max_product_type_share %g, and left out",
            above, numbers["read"], args.max_product_type_share,
        )  # fmt: skip
    return items, {
        "kind": kind, "path": str(source), "image_dir": str(image_dir), "listings": numbers["listings"],
        "products": numbers["read"], "left_out": dict(counts), "unsaid": unsaid,
    }  # fmt: skip
