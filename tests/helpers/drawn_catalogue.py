"""Products of a catalogue, drawn photographs of them, and items to ask about, for tests."""

import random
from pathlib import Path

from PIL import Image, ImageDraw

from blip2vqa.generate.rows import Item, Product

WHITE = (255, 255, 255)
PAINTS = {
    "black": (20, 20, 20),
    "white": (244, 244, 244),
    "gray": (128, 128, 128),
    "red": (200, 20, 20),
    "orange": (240, 130, 20),
    "yellow": (240, 220, 30),
    "green": (30, 150, 50),
    "blue": (30, 60, 200),
    "purple": (120, 40, 180),
    "pink": (240, 120, 180),
    "brown": (110, 70, 30),
    "beige": (225, 205, 170),
}
NOUNS = ("boot", "sneaker", "shoe", "ring", "umbrella", "scissors", "headphones", "suitcase", "chair", "sofa", "table", "desk",
         "towel", "dinnerware", "cup", "cable")  # fmt: skip
VALUES = {
    "color": ("black", "white", "gray", "red", "blue", "green", "brown", "silver"),
    "material": ("leather", "wood", "metal", "cotton", "plastic", "glass", "ceramic", "paper"),
    "shape": ("round", "square", "oval", "rectangular"),
    "pattern": ("striped", "floral", "plaid", "solid", "dotted"),
    "style": ("modern", "rustic", "formal"),
    "proportion": ("taller", "wider"),
}


def product(
    name: str, product_type: str = "", images: str | tuple[str, ...] = "a.png", item_id: str = "", **texts
) -> Product:
    """A listing; `texts` by field, one value or several; without an id it has that of its first picture."""
    images = (images,) if isinstance(images, str) else images
    said = {field: (values,) if isinstance(values, str) else tuple(values) for field, values in texts.items()}
    return Product(item_id or images[0], product_type, name, images, said)


def item(image_name: str = "a.png", product_type: str = "", not_wrong: tuple[str, ...] = (), **facts: str) -> Item:
    """A picture with these facts, of a product of its own."""
    return Item(image_name, Path(image_name), image_name, image_name, product_type, "", facts, frozenset(not_wrong))


def drawn_items(number: int, seed: int = 0) -> list[Item]:
    """Items with nouns and other facts at random, about one kind in four unknown."""
    from blip2vqa.generate.catalogue.vocabulary import vocabulary

    rng, items = random.Random(seed), []
    for place in range(number):
        noun = rng.choice(NOUNS)
        facts = {"object": noun, "category": vocabulary().category_of[noun]}
        facts |= {kind: rng.choice(values) for kind, values in VALUES.items() if rng.random() < 0.75}
        items.append(item(f"{place:04d}.png", noun, tuple(rng.sample(VALUES["color"], rng.randrange(3))), **facts))
    return items


def photograph(
    *paints: str | tuple[int, int, int],
    form: str = "box",
    size: tuple[int, int] = (80, 80),
    canvas: int = 128,
    ground: tuple[int, int, int] = WHITE,
) -> Image.Image:
    """A product in the middle of a square picture: a box, or an ellipse, `size` (width, height) in pixels.

    Several paints part it into bands from top to bottom, a paint named twice being twice as broad.
    """
    image = Image.new("RGB", (canvas, canvas), ground)
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    (draw.rectangle if form == "box" else draw.ellipse)((0, 0, size[0] - 1, size[1] - 1), fill=1)
    bands = Image.new("RGB", (1, len(paints)))
    bands.putdata([PAINTS.get(paint, paint) for paint in paints])
    image.paste(bands.resize(size, Image.Resampling.NEAREST), ((canvas - size[0]) // 2, (canvas - size[1]) // 2), mask)
    return image


def unlike(number: int, paint: str = "red") -> Image.Image:
    """A box of 112 by 112 in lighter and darker cells of one colour; no two numbers look alike."""
    rng, image, box = random.Random(number), Image.new("RGB", (128, 128), WHITE), Image.new("RGB", (6, 6))
    shades = [rng.uniform(0.4, 1) for _ in range(36)]
    box.putdata([tuple(round(channel * shade) for channel in PAINTS[paint]) for shade in shades])
    image.paste(box.resize((112, 112), Image.Resampling.NEAREST), (8, 8))
    return image


def save(folder: Path, **pictures: Image.Image) -> Path:
    """Pictures as NAME.png in `folder`, which is handed back."""
    for name, image in pictures.items():
        image.save(folder / f"{name}.png")
    return folder
