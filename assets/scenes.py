"""Draw small scenes of coloured shapes: the only pictures the embedded bases have ever seen.

    python assets/scenes.py sheet.png        # look at 48 of them

A scene is one to four shapes on a plain or gently shaded background, 64 by 64 pixels. Everything follows from the
`random.Random` that is handed in: the same seed gives the same scenes, pixel for pixel.
"""

import argparse
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
"""Width and height of a scene, in pixels."""
GRID = 4
"""Cells on a side: no two shapes of a scene have their centres in the same cell."""
CELL = SIZE // GRID
OVERSAMPLE = 4
SHAPES = ("circle", "square", "rectangle", "triangle", "diamond", "star", "cross", "ring")
COLORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((10, 10, 10),),
    "gray": ((128, 128, 128), (112, 112, 112)),
    "white": ((250, 250, 250),),
    "red": ((240, 10, 15), (210, 20, 30)),
    "green": ((15, 215, 20), (20, 140, 30), (60, 180, 75)),
    "blue": ((15, 20, 240), (40, 80, 210)),
    "brown": ((160, 45, 45), (140, 75, 25)),
    "yellow": ((250, 250, 15), (250, 220, 40)),
    "orange": ((250, 140, 15),),
    "purple": ((130, 20, 140), (150, 40, 200)),
    "pink": ((250, 130, 190), (250, 170, 200)),
    "teal": ((10, 128, 128), (20, 150, 150)),
}
COLOR_NAMES = tuple(COLORS)
JITTER = 12
"""Largest change of a red, green or blue value, of 255."""


@dataclass(frozen=True)
class Item:
    """One shape: name, colour name, colour, and where it lies. Lengths are in pixels, angles in degrees."""

    shape: str
    color: str
    rgb: tuple[int, int, int]
    x: float
    y: float
    radius: float
    angle: float
    aspect: float
    lean: float

    @property
    def size(self) -> str:
        """`small`, `large`, or an empty string where people would disagree."""
        return "small" if self.radius < 6.5 else "large" if self.radius > 9.5 else ""

    @property
    def place(self) -> str:
        """`left`, `right`, `top`, `bottom`, `middle`, or an empty string near the diagonals."""
        dx, dy = self.x - SIZE / 2, self.y - SIZE / 2
        if max(abs(dx), abs(dy)) < 6:
            return "middle"
        if max(abs(dx), abs(dy)) < 10 or abs(abs(dx) - abs(dy)) < 6:
            return ""
        if abs(dx) > abs(dy):
            return "left" if dx < 0 else "right"
        return "top" if dy < 0 else "bottom"

    @property
    def cell(self) -> tuple[int, int]:
        """Row and column of the grid cell that holds the centre."""
        return min(GRID - 1, int(self.y // CELL)), min(GRID - 1, int(self.x // CELL))


@dataclass(frozen=True)
class Scene:
    """A background (`light`, `mid` or `dark`, the colours of its upper and lower edge) and one to four items."""

    ground: str
    top: tuple[int, int, int]
    bottom: tuple[int, int, int]
    items: tuple[Item, ...]


def _jitter(rng: random.Random, rgb: tuple[int, int, int], amount: int = JITTER) -> tuple[int, int, int]:
    return tuple(max(0, min(255, value + rng.randint(-amount, amount))) for value in rgb)


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    return math.dist(one, other)


def _background(rng: random.Random) -> tuple[str, tuple[int, int, int], tuple[int, int, int]]:
    ground = rng.choices(("light", "mid", "dark"), (70, 15, 15))[0]
    low, high = {"light": (215, 255), "mid": (95, 185), "dark": (10, 70)}[ground]
    top = tuple(rng.randint(low, high) for _ in range(3))
    bottom = _jitter(rng, top, 18) if rng.random() < 0.4 else top
    return ground, top, bottom


def _outline(item: Item) -> list[tuple[float, float]]:
    """Corners of a polygonal item around the origin, for radius 1, before turning."""
    if item.shape in ("square", "rectangle"):
        wide = 1.0 if item.aspect >= 1 else item.aspect
        tall = 1.0 if item.aspect <= 1 else 1 / item.aspect
        return [(-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall)]
    if item.shape == "triangle":
        return [(item.lean, -0.95), (0.95, 0.85), (-0.95, 0.85)]
    if item.shape == "diamond":
        return [(0, -1.1), (0.8 * item.aspect, 0), (0, 1.1), (-0.8 * item.aspect, 0)]
    if item.shape == "star":
        radii = (1.15, 0.47)
        turns = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
        return [(radii[k % 2] * math.cos(t), radii[k % 2] * math.sin(t)) for k, t in enumerate(turns)]
    arm = 0.36
    quarter = [(-arm, -1), (arm, -1), (arm, -arm)]
    return [p for k in range(4) for p in [_turn(q, 90 * k) for q in quarter]]


def _turn(point: tuple[float, float], degrees: float) -> tuple[float, float]:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return point[0] * cosine - point[1] * sine, point[0] * sine + point[1] * cosine


def _paint(draw: ImageDraw.ImageDraw, item: Item, scale: float, fill) -> None:
    x, y, radius = item.x * scale, item.y * scale, item.radius * scale
    if item.shape in ("circle", "ring"):
        box = (x - radius, y - radius, x + radius, y + radius)
        if item.shape == "circle":
            draw.ellipse(box, fill=fill)
        else:
            draw.ellipse(box, outline=fill, width=max(1, round(0.38 * radius)))
        return
    corners = [_turn(p, item.angle) for p in _outline(item)]
    draw.polygon([(x + radius * px, y + radius * py) for px, py in corners], fill=fill)


def _item(rng: random.Random, largest: float, backs: tuple, shapes: tuple[str, ...], colors: tuple[str, ...]) -> Item:
    shape = rng.choice(shapes)
    color = rng.choice(colors)
    rgb = _jitter(rng, rng.choice(COLORS[color]))
    while min(_distance(rgb, back) for back in backs) < 75:
        color = rng.choice(colors)
        rgb = _jitter(rng, rng.choice(COLORS[color]))
    radius = rng.uniform(4.0 if shape in ("circle", "square", "rectangle", "triangle") else 4.8, largest)
    upright = rng.random() < 0.6
    angle = 0.0 if upright else rng.uniform(-180, 180) if shape == "triangle" else rng.uniform(-14, 14)
    aspect = 1.0
    if shape == "rectangle":
        aspect = rng.uniform(1.4, 2.8)
        aspect = aspect if rng.random() < 0.5 else 1 / aspect
        radius = max(radius, 5.0)
    elif shape == "diamond":
        aspect = rng.uniform(0.8, 1.15)
    lean = 0.0 if upright else rng.uniform(-0.6, 0.6)
    margin = radius * (1.0 if rng.random() < 0.9 else 0.7)
    x, y = rng.uniform(margin, SIZE - margin), rng.uniform(margin, SIZE - margin)
    return Item(shape, color, rgb, x, y, radius, angle, aspect, lean)


def draw_scene(
    rng: random.Random,
    counts: tuple[int, ...] = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4),
    shapes: tuple[str, ...] = SHAPES,
    colors: tuple[str, ...] = COLOR_NAMES,
) -> Scene:
    """Think up one scene; `counts` are the numbers of items to choose from, each as likely as it is often named."""
    count = rng.choice(counts)
    ground, top, bottom = _background(rng)
    largest = {1: 17.5, 2: 15.5, 3: 13.0}.get(count, 11.0)
    items: list[Item] = []
    for _ in range(200):
        if len(items) == count:
            break
        new = _item(rng, largest, (top, bottom), shapes, colors)
        reach = 1.15 if new.shape in ("square", "rectangle", "star") else 1.0
        clear = all(
            math.dist((new.x, new.y), (old.x, old.y)) > reach * (new.radius + old.radius) + 1 and new.cell != old.cell
            for old in items
        )
        if clear:
            items.append(new)
    return Scene(ground, top, bottom, tuple(items))


def render(scene: Scene) -> np.ndarray:
    """Paint a scene with smooth edges: uint8 array [64, 64, 3], red, green, blue."""
    wide = SIZE * OVERSAMPLE
    image = Image.new("RGB", (wide, wide), scene.top)
    draw = ImageDraw.Draw(image)
    if scene.top != scene.bottom:
        for y in range(0, wide, OVERSAMPLE):
            share = y / (wide - 1)
            shade = tuple(round((1 - share) * a + share * b) for a, b in zip(scene.top, scene.bottom, strict=True))
            draw.rectangle((0, y, wide, y + OVERSAMPLE), fill=shade)
    for item in scene.items:
        _paint(draw, item, OVERSAMPLE, item.rgb)
    return np.asarray(image.reduce(OVERSAMPLE))


def coverage(scene: Scene) -> np.ndarray:
    """Which item covers each pixel: uint8 array [64, 64], 0 for the background, k + 1 for item k."""
    image = Image.new("L", (SIZE, SIZE), 0)
    draw = ImageDraw.Draw(image)
    for number, item in enumerate(scene.items):
        _paint(draw, item, 1, number + 1)
    return np.asarray(image)


def draw_scenes(count: int, seed: int, **options) -> list[Scene]:
    """`count` scenes from one seed; further options as in `draw_scene`."""
    rng = random.Random(seed)
    return [draw_scene(rng, **options) for _ in range(count)]


def contact_sheet(scenes: list[Scene], columns: int = 12, zoom: int = 2) -> Image.Image:
    """All scenes side by side, to look at."""
    rows = -(-len(scenes) // columns)
    sheet = Image.new("RGB", (columns * (SIZE + 2), rows * (SIZE + 2)))
    for number, scene in enumerate(scenes):
        spot = (number % columns * (SIZE + 2), number // columns * (SIZE + 2))
        sheet.paste(Image.fromarray(render(scene)), spot)
    return sheet.resize((sheet.width * zoom, sheet.height * zoom))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    contact_sheet(draw_scenes(48, arguments.seed)).save(arguments.output)
