"""Read whichever catalogue is named, and choose the pictures to ask about.

They are drawn evenly over product types, each is measured once, and look-alikes are in one group.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest
from multiprocessing.pool import ThreadPool
from pathlib import Path
from random import Random

import numpy as np

from blip2vqa.config.generate import CatalogueArguments
from blip2vqa.data.finding import ImageIndex
from blip2vqa.data.images import BadImage
from blip2vqa.generate.catalogue.abo import read_products
from blip2vqa.generate.catalogue.abo_layout import find_archive
from blip2vqa.generate.catalogue.facts import facts_of, named_in
from blip2vqa.generate.catalogue.pictures import PictureStats, measure_picture
from blip2vqa.generate.catalogue.table_catalogue import read_table_products
from blip2vqa.generate.catalogue.vocabulary import vocabulary
from blip2vqa.generate.rows import Item, Product
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.progress import show_progress

AT_ONCE = 256  # pictures measured before it is checked again how many are still needed
NAME = 200  # characters of a name that are kept
CONFIRMED = 0.5  # share of the product that must look like the catalogue's color
ITSELF = 0.2  # share of it that must look like the first of the colors that this color may look like
VISIBLE = 0.15  # share from which on another color would not be a wrong answer
PROPORTION = 1.25  # height to width, or width to height, from which on one is plainly larger
ABOVE_SHARE = "more of a product type than its share"  # reason for which a picture is left out
UNSAID = (OF_PATTERN, NOT_SEEN) = ("color of a pattern", "color not seen in the picture")  # reasons to drop a fact
LOOK_ALIKE = 4  # largest number of the 64 bits of a perceptual hash in which look-alikes differ

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


def choose_items(
    products: Iterable[Product], image_dir: Path, args: CatalogueArguments, seed: int, counts: Counter
) -> list[Item]:
    """Choose the pictures to ask about and describe them, in the order of their names.

    Product types take turns, each in an order drawn by the seed, until there are `args.num_images`, or one has its share.
    `counts` gets the reasons for which products and pictures were left out. The order of the products does not matter, except
    that of two listings with one main picture the first is taken.
    """
    by_type, shared = _by_type(products, image_dir, args.all_pictures, counts)
    known = sum(map(len, by_type.values()))
    wanted = min(args.num_images or known, known)
    # With few types, each may have as many as it takes to reach the number.
    most = max(round(args.max_product_type_share * wanted), -(-wanted // max(len(by_type), 1)))
    order = sorted(by_type)  # before the draw, for the products come in any order
    Random(seed).shuffle(order)
    for product_type, listed in by_type.items():
        listed.sort(key=lambda item: item.image_name)
        Random(f"{seed} {product_type}").shuffle(listed)
    taken, per_type, hashes, digests = [], Counter(), [], {}

    def turns() -> Iterator[Item]:
        for turn in zip_longest(*(by_type[name] for name in order)):
            for item in filter(None, turn):
                if per_type[item.product_type] < most:
                    yield item
                else:
                    counts[ABOVE_SHARE] += 1

    with ThreadPool() as pool, show_progress(total=wanted, desc="measuring pictures", unit="image") as bar:
        for item, stats in _measured(turns(), ImageIndex(image_dir), pool, wanted, taken):
            if len(taken) == wanted:
                break  # the rest was measured in one batch with the last that was wanted
            if per_type[item.product_type] == most:
                counts[ABOVE_SHARE] += 1
            elif isinstance(stats, BadImage):
                counts["picture not usable"] += 1
            elif stats.digest in digests:
                counts["picture already there"] += 1
                shared.append((digests[stats.digest], item.item_id))
            else:
                taken.append(_described(item, stats, counts))
                per_type[item.product_type] += 1
                digests[stats.digest] = item.item_id
                hashes.append(stats.hash)
                bar.update()
    counts["pictures"] = len(taken)
    groups = group_look_alikes(hashes, [item.item_id for item in taken], shared)
    items = [replace(item, group=group) for item, group in zip(taken, groups, strict=True)]
    return sorted(items, key=lambda item: item.image_name)


def _by_type(
    products: Iterable[Product], image_dir: Path, all_pictures: bool, counts: Counter
) -> tuple[dict[str, list[Item]], list[tuple[str, str]]]:
    """Group pictures by product type, each once, and find the pairs of products that share a picture."""
    by_type, owners, shared = defaultdict(list), {}, []
    for product in products:
        facts = facts_of(product)
        if "object" not in facts:
            counts["not clear what it is"] += 1
            continue
        # In a catalogue without product types, the noun stands for the type.
        kind = product.product_type or facts["object"]
        named = named_in(product)
        for name in product.images if all_pictures else product.images[:1]:
            if name in owners:
                counts["picture of another listing, too"] += 1
                shared.append((owners[name], product.item_id))
                continue
            owners[name] = product.item_id
            item = Item(name, image_dir / name, "", product.item_id, kind, product.name[:NAME], facts, named=named)
            by_type[kind].append(item)
    return by_type, shared


def _measured(
    turns: Iterator[Item], index: ImageIndex, pool: ThreadPool, wanted: int, taken: Sequence[Item]
) -> Iterator[tuple[Item, PictureStats | BadImage]]:
    """Yield pictures with their measures, batch by batch, as long as more are wanted than were taken."""

    def measure(item: Item) -> tuple[Item, PictureStats | BadImage]:
        try:
            path = index.at(item.image_name) or item.path
            return replace(item, path=path), measure_picture(path)
        except BadImage as bad:
            return item, bad

    while len(taken) < wanted and (batch := list(islice(turns, AT_ONCE))):
        yield from pool.imap(measure, batch, chunksize=8)


def _described(item: Item, stats: PictureStats, counts: Counter) -> Item:
    """Complete an item by its picture: digest, proportion, and the catalogue's color only where the picture confirms it."""
    facts, known = dict(item.facts), vocabulary()
    color = facts.pop("color", None)
    if color and facts.get("pattern", "solid") != "solid":
        counts[OF_PATTERN] += 1
    elif color:
        shares = [stats.colors.get(name, 0) for name in known.seen_as.get(color, ())]
        if shares and sum(shares) >= CONFIRMED and shares[0] >= ITSELF:
            facts["color"] = color
        else:
            counts[NOT_SEEN] += 1
    ratio = stats.height_to_width
    if ratio and not 1 / PROPORTION < ratio < PROPORTION:
        facts["proportion"] = "taller" if ratio > 1 else "wider"
    not_wrong = frozenset(name for name, share in stats.colors.items() if share > VISIBLE)
    if ratio is None:
        not_wrong |= known.around
    return replace(item, digest=stats.digest, facts=facts, not_wrong=not_wrong)


def group_look_alikes(
    hashes: Sequence[int], item_ids: Sequence[str], shared: Iterable[tuple[str, str]] = ()
) -> list[int]:
    """Number the groups of pictures that belong together; returns one number a picture.

    Together are pictures of one product, of products that share a picture (pairs of ids), and pictures whose hashes differ in
    at most `LOOK_ALIKE` bits, and whatever these lead to in turn.
    """
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Nodes are the distinct hashes, then the products. A picture links its hash and its product.
    bits, hash_of = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    numbers, ids = pd.factorize(np.array([*item_ids, *chain.from_iterable(shared)], dtype=object))
    products = len(bits) + numbers
    links = [*zip(hash_of, products, strict=False), *products[len(item_ids) :].reshape(-1, 2)]
    for place, own in enumerate(bits):
        near = np.flatnonzero(np.bitwise_count(bits[place + 1 :] ^ own) <= LOOK_ALIKE)
        links += [(place, place + 1 + other) for other in near]
    if not links:
        return []
    size = len(bits) + len(ids)
    graph = coo_array((np.ones(len(links), dtype=bool), np.array(links).T), shape=(size, size))
    return pd.factorize(connected_components(graph, directed=False)[1][hash_of])[0].tolist()
