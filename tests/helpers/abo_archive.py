"""A tiny product archive in the layout of Amazon Berkeley Objects, with drawn pictures, for tests."""

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

PAINTS = {
    "Red": (200, 30, 30),
    "Blue": (30, 60, 200),
    "Green": (30, 150, 60),
    "Black": (20, 20, 20),
    "White": (245, 245, 245),
}
KINDS = (
    ("CHAIR", "Wooden Chair", {"material": "Wood", "item_shape": "Square", "style": "Modern"}),
    ("SHOES", "Leather Shoes", {"material": "Leather", "pattern": "Solid"}),
    ("RUG", "Woven Rug", {"fabric_type": "100% Cotton", "item_shape": "Round", "pattern": "Striped"}),
    ("CELLULAR_PHONE_CASE", "Mobile Cover", {"material": "Silicone", "pattern": "Floral", "item_keywords": "back cover, case"}),
)  # fmt: skip


def text(*values: object, language: str | None = "en_US", **more) -> list[dict]:
    """Values as the archive writes them, in one language; None leaves the tag out."""
    tag = {} if language is None else {"language_tag": language}
    return [tag | more | {"value": value} for value in values]


def listing(item_id: str, main_image_id: str | None = None, **fields) -> dict:
    """A line of listings_*.json: a chair with an English name, unless `fields` say otherwise; None leaves a field out."""
    line = {
        "item_id": item_id,
        "item_name": text("Chair"),
        "product_type": [{"value": "CHAIR"}],
        "main_image_id": main_image_id or f"main-{item_id}",
        "country": "US",
        "marketplace": "Amazon",
        "domain_name": "amazon.com",
    }
    return {name: value for name, value in (line | fields).items() if value is not None}


def image_path(image_id: str) -> str:
    """Where the archive keeps a picture, inside images/small: 14/14fe8812.jpg."""
    name = hashlib.sha256(image_id.encode()).hexdigest()[:8]
    return f"{name[:2]}/{name}.jpg"


def picture(number: int = 0, color: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    """32×32 pixels: a shape in `color` on a light ground, no two numbers alike."""
    image = Image.new("RGB", (32, 32), (230, 230, 220))
    draw = ImageDraw.Draw(image)
    corner = 2 + number % 8
    (draw.rectangle if number % 2 else draw.ellipse)((corner, 6, corner + 18, 26), fill=color)
    draw.line((0, number % 32, 31, (7 * number) % 32), fill=(number * 37 % 256, number * 91 % 256, 90), width=2)
    return image


def lines(listings: Iterable[dict | str | bytes]) -> bytes:
    """One listing a line; texts and bytes as they are, for what is broken."""
    encoded = [json.dumps(line, ensure_ascii=False) if isinstance(line, dict) else line for line in listings]
    return b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in encoded)


def images_table(image_ids: Iterable[str]) -> bytes:
    """images.csv with a row for each id."""
    rows = [f"{image_id},32,32,{image_path(image_id)}" for image_id in image_ids]
    return ("\n".join(["image_id,height,width,path", *rows]) + "\n").encode()


def write_packed(path: Path, content: bytes, packed: bool) -> Path:
    """Write `content` under this name, or gzipped with .gz after it; the path written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
    return path


def write_pictures(folder: Path, pictures: Mapping[str, Image.Image]) -> None:
    """Pictures by image id, in the archive's folders below `folder`."""
    for image_id, image in pictures.items():
        path = folder / image_path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def write_archive(
    folder: Path,
    files: Sequence[Sequence[dict | str | bytes]],
    pictures: Mapping[str, Image.Image] | None = None,
    *,
    packed: bool = True,
    size: str = "small",
    listings: str = "listings/metadata",
    images: str = "images",
) -> Path:
    """Lay an archive out in `folder`, as shipped unless told otherwise; hands back `folder`.

    files: the listings of listings_0, listings_1, … `pictures`: by image id; default: one for each image id named by
    the listings. `listings`, `images`: the archive's folders inside `folder`; `size`: small or original.
    """
    for number, content in enumerate(files):
        write_packed(folder / listings / f"listings_{number:x}.json", lines(content), packed)
    if pictures is None:
        named = [line for content in files for line in content if isinstance(line, dict)]
        ids = [id for line in named for id in (line.get("main_image_id"), *line.get("other_image_id", ()))]
        pictures = {image_id: picture(number) for number, image_id in enumerate(dict.fromkeys(ids)) if image_id}
    write_packed(folder / images / "metadata/images.csv", images_table(pictures), packed)
    write_pictures(folder / images / size, pictures)
    return folder


def drawn_archive(folder: Path, products: int = 20, pictures: int = 1, files: int = 2) -> Path:
    """An archive of English products of four types in five colors, `pictures` of each; no two pictures alike."""
    listings, drawn = [], {}
    for number in range(products):
        kind, name, facts = KINDS[number % len(KINDS)]
        color = list(PAINTS)[number // len(KINDS) % len(PAINTS)]
        ids = [f"{number}-{view}" for view in range(pictures)]
        drawn |= {image_id: picture(number * pictures + view, PAINTS[color]) for view, image_id in enumerate(ids)}
        fields = {field: text(value) for field, value in facts.items()}
        fields |= {
            "item_name": text(f"{color} {name} {number}"),
            "product_type": [{"value": kind}],
            "color": text(color),
        }
        listings.append(listing(f"B{number:09d}", ids[0], other_image_id=ids[1:] or None, **fields))
    return write_archive(folder, [listings[start::files] for start in range(files)], drawn)
