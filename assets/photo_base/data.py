"""The photographs: decoded once, held-out ones and their look-alikes left out, with what a catalogue says of them.

Either the Amazon Berkeley Objects archive, or a folder with the photographs in tar files beside `metadata.csv` (`image_name`,
`name`, `product_type`, `color`, `keywords` of some of them). Tar files are unpacked into the work folder.
"""

import hashlib
import json
import re
import shutil
import tarfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from blip2vqa.config.generate import CatalogueArguments
from blip2vqa.data.images import BadImage, ImageSource, open_image, picture_extensions
from blip2vqa.generate.catalogue.abo import read_products
from blip2vqa.generate.catalogue.abo_layout import find_archive
from blip2vqa.generate.catalogue.selecting import LOOK_ALIKE, read_items
from blip2vqa.generate.catalogue.table_catalogue import read_table_products
from blip2vqa.generate.rows import Item
from blip2vqa.utils.errors import InputError
from blip2vqa.utils.files import write_json_atomic, write_text_atomic

SIZE = 128
"""Width and height of a picture, in pixels; as the image processor does, pictures are squeezed into a square."""
MAX_GROUP_SIZE = 3
"""Most pictures of a group that may be held out: large groups are learnt from."""
BYTES_EACH = 220_000
"""Bytes that the work folder needs for each photograph: pixels, the network's outputs, the ViT's outputs."""


@dataclass
class Photographs:
    """What the photo base learns from, and what it must never see."""

    folder: Path
    names: list[str]
    """Names of the pictures that are learnt from, inside the folder."""
    pixels: np.ndarray
    """uint8 [all pictures, SIZE, SIZE, 3], mapped from the work folder."""
    rows: np.ndarray
    """int64 [names], the rows of `pixels` that are learnt from."""
    items: list[Item | None]
    """What the catalogue says of each picture that is learnt from; None where it says nothing that a picture shows."""
    titles: list[str]
    """Name of the product on each picture that is learnt from; "" where there is none."""
    held_items: list[Item]
    """Pictures with facts that are held out; the quick start's are among them."""
    held_rows: np.ndarray
    """int64 [held_items], their rows of `pixels`."""


def read_photographs(source: Path, unseen: Path | None, work: Path, held_out: int, seed: int) -> Photographs:
    """Read the photographs of `source`, without those that look like one of the table `unseen` (`image_name`; beside `images`).

    Of those with facts, `held_out` are kept back, by groups of products that look alike or have one name; so are all other
    pictures of their products. Decoded pictures and their hashes are kept in `work`. Raises `InputError` where there are no
    photographs, or `work` was made of others.
    """
    if held_out < 1:
        raise InputError(f"--held_out {held_out}: give the number of photographs, 1 or more")
    folder, catalogue = find_photographs(source, work)
    names, pixels, hashes = _decode(folder, work)
    items, _ = read_items(CatalogueArguments(num_images=0, max_product_type_share=1, **catalogue), seed)
    held = _hold_out(items, held_out, seed)
    item_of, title_of = {item.image_name: item for item in items}, _titles(catalogue)
    row_of = {name: row for row, name in enumerate(names)}
    held_rows = np.array([row_of[item.image_name] for item in held], np.int64)
    others = hashes[held_rows]
    if unseen:
        others = np.concatenate([others, _hash_unseen(unseen)])
    held_products = {plain_name(title_of[item.image_name]) for item in held}
    same = np.array([plain_name(title_of.get(name, "")) in held_products - {""} for name in names])
    left_out = look_alikes(hashes, others) | same
    left_out[held_rows] = True
    rows = np.flatnonzero(~left_out)
    print(
        f"{source}: {len(names):,} photographs, {len(items):,} of them with facts. {len(held):,} are held out; "
        f"{left_out.sum() - len(held):,} more show the same products, or look like those or like pictures of {unseen}; "
        f"{len(rows):,} are learnt from",
        flush=True,
    )
    kept = [names[row] for row in rows]
    _bind(work, {"seed": seed, "learnt": "\n".join(kept), "held_out": "\n".join(item.image_name for item in held)})
    return Photographs(
        folder, kept, pixels, rows, [item_of.get(name) for name in kept], [title_of.get(name, "") for name in kept],
        held, held_rows,
    )  # fmt: skip


def _hash_unseen(table: Path) -> np.ndarray:
    """Hash the pictures of a table, uint64 [pictures]. Raises `InputError` where it, or one of them, cannot be read."""
    try:
        names = sorted(set(pd.read_csv(table, dtype=str)["image_name"]))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--unseen {table}: no table with a column image_name can be read there") from error
    hashes = []
    for name in names:
        path = table.parent / "images" / name
        try:
            hashes.append(_hash(open_image(ImageSource(name, path=path))))
        except BadImage as bad:
            raise InputError(f"--unseen {table}: {path}: {bad.reason}") from bad
    return np.array(hashes, np.uint64)


def _bind(work: Path, inputs: dict) -> None:
    """Keep what a work folder is made from, hashed; raises `InputError` where it was made from something else."""
    path = work / "inputs.json"
    hashed = {name: hashlib.sha256(str(value).encode()).hexdigest()[:16] for name, value in inputs.items()}
    if path.exists() and json.loads(path.read_text()) != hashed:
        raise InputError(f"{work}: it was made from other photographs or another --seed; give a new folder")
    write_json_atomic(path, hashed)


def find_photographs(source: Path, work: Path) -> tuple[Path, dict[str, str]]:
    """Find the folder of the photographs, and how `CatalogueArguments` names the catalogue; unpacks tar files into `work`."""
    table = source / "metadata.csv"
    if not table.exists():
        try:
            return find_archive(source).image_dir, {"abo_dir": str(source)}
        except InputError as error:
            found = [problem.replace("--abo_dir", "--photos") for problem in error.problems]
            raise InputError(*found, f"--photos {source}: nor is there a metadata.csv beside tar files") from error
    folder, archives = work / "photographs", sorted(source.glob("*.tar"))
    if not archives:
        raise InputError(f"--photos {source}: there is no tar file of photographs beside metadata.csv")
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        (folder / "done").touch()
    return folder, {"csv_path": str(table), "image_dir": str(folder)}


def look_alikes(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tell which perceptual hashes, uint64 [pictures], differ from one of `others` in at most `LOOK_ALIKE` bits."""
    return np.array([(np.bitwise_count(others ^ one) <= LOOK_ALIKE).any() for one in hashes], bool)


def plain_name(title: str) -> str:
    """Take sizes, numbers and what stands in brackets out of a product's name: what is left tells products apart."""
    return re.sub(r"[^a-z]+", " ", re.sub(r"\(.*?\)|\d\S*", " ", title.lower())).strip()


def product_groups(items: Sequence[Item]) -> list[str]:
    """Name the group of each item: together are pictures that look alike, or whose products' names differ in sizes alone."""
    from scipy.cluster.hierarchy import DisjointSet

    names = [plain_name(item.name) for item in items]
    looks = [f"look-alikes {item.group}" for item in items]
    together = DisjointSet([*names, *looks])
    for name, look in zip(names, looks, strict=True):
        together.merge(name, look)
    return [together[name] for name in names]


def _hold_out(items: Sequence[Item], number: int, seed: int) -> list[Item]:
    """Choose up to `number` pictures, by groups of at most `MAX_GROUP_SIZE` that look alike or have one name."""
    groups, first_name = defaultdict(list), {}
    for item in items:
        groups[first_name.setdefault(item.group, plain_name(item.name))].append(item)
    order = sorted(groups)
    np.random.default_rng(seed).shuffle(order)
    held: list[Item] = []
    for name in order:
        if len(groups[name]) <= min(MAX_GROUP_SIZE, number - len(held)):
            held += groups[name]
    return held


def _titles(catalogue: dict[str, str]) -> dict[str, str]:
    """Read the products' names by picture, of all their pictures."""
    if "abo_dir" in catalogue:
        products = read_products(find_archive(catalogue["abo_dir"]), Counter())
    else:
        products = read_table_products(catalogue["csv_path"], catalogue["image_dir"], Counter())
    return {image: product.name for product in products for image in product.images}


def _hash(picture: Image.Image) -> int:
    return int(str(imagehash.phash(picture)), 16)


def _read(path: Path) -> tuple[np.ndarray, int] | None:
    """Read a picture: uint8 [SIZE, SIZE, 3], resized as the image processor of the base does, and its perceptual hash."""
    try:
        picture = open_image(ImageSource(path.name, path=path))
    except BadImage as bad:
        print(f"{path}: left out: {bad.reason}", flush=True)
        return None
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)), _hash(picture)


def _decode(folder: Path, work: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Decode all pictures of a folder once: names, pixels [pictures, SIZE, SIZE, 3] and perceptual hashes [pictures]."""
    names_path, pixels_path, hashes_path = work / "names.txt", work / "pixels.npy", work / "hashes.npy"
    if not names_path.exists():
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in picture_extensions())
        need, free = len(paths) * BYTES_EACH / 1e9, shutil.disk_usage(work).free / 1e9
        if need > free:
            raise InputError(
                f"--work {work}: {need:.0f} GB are needed for {len(paths):,} photographs, {free:.0f} are free"
            )
        pixels = np.lib.format.open_memmap(pixels_path, "w+", np.uint8, (len(paths), SIZE, SIZE, 3))
        hashes, names = np.empty(len(paths), np.uint64), []
        with ThreadPool() as pool:
            for path, read in zip(paths, pool.imap(_read, paths, chunksize=64), strict=True):
                if read:
                    pixels[len(names)], hashes[len(names)] = read
                    names.append(path.relative_to(folder).as_posix())
        pixels.flush()
        np.save(hashes_path, hashes[: len(names)])
        write_text_atomic(names_path, "\n".join(names))
    return names_path.read_text(encoding="utf-8").split("\n"), np.load(pixels_path, mmap_mode="r"), np.load(hashes_path)
