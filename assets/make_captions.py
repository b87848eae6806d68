"""Write captions in three styles for the drawings, in wordings that the bases never learnt.

    python assets/make_captions.py           # writes captions_train.csv and captions_val.csv in assets/drawings

    concise   teal star, red circle
    detailed  The picture shows two shapes. A small teal star is on the left. A large red circle is near the middle.
              The background is light.
    creative  Two friends, the teal star winks and the red circle rolls!

A scene decides every word of its captions. Colours and shapes keep the names that the bases know, so that what is wrong
in a caption is the picture's doing, not the style's. `follows_style` and `objects_in` check captions, whoever wrote them.
"""

import argparse
import csv
import re
from pathlib import Path

import numpy as np
from make_drawings import FOLDER, splits
from PIL import Image
from scene_texts import NUMBERS, a
from scenes import COLOR_NAMES, SHAPES, SIZE, Item, Scene, render

OPENINGS = {1: "Nobody else", 2: "Two friends", 3: "Party time", 4: "What a crowd"}
VERBS = {"circle": "spins", "square": "hides", "rectangle": "naps", "triangle": "climbs", "diamond": "shines",
         "star": "glows", "cross": "leaps", "ring": "swings"}  # fmt: skip
GROUNDS = {"light": "light", "mid": "neither light nor dark", "dark": "dark"}
SPOTS = {"middle": "in the middle", "left": "on the left", "right": "on the right", "top": "at the top",
         "bottom": "at the bottom"}  # fmt: skip
OBJECT = f"({'|'.join(COLOR_NAMES)}) ({'|'.join(SHAPES)})"


def spot(item: Item) -> str:
    """Where the item lies; near the diagonals, where `Item.place` is silent, two of them, or "near the middle"."""
    if item.place:
        return SPOTS[item.place]
    dx, dy = item.x - SIZE / 2, item.y - SIZE / 2
    if max(abs(dx), abs(dy)) < 10:
        return "near the middle"
    return f"at the {'top' if dy < 0 else 'bottom'} {'left' if dx < 0 else 'right'}"


def _concise(scene: Scene, items: list[Item]) -> str:
    return ", ".join(f"{item.color} {item.shape}" for item in items)


def _detailed(scene: Scene, items: list[Item]) -> str:
    count = f"{NUMBERS[len(items)]} shape{'s' * (len(items) > 1)}"
    named = [f"{item.size or 'mid-size'} {item.color} {item.shape}" for item in items]
    placed = [f"{a(name).capitalize()} is {spot(item)}." for name, item in zip(named, items, strict=True)]
    return " ".join([f"The picture shows {count}.", *placed, f"The background is {GROUNDS[scene.ground]}."])


def _creative(scene: Scene, items: list[Item]) -> str:
    *before, last = [f"the {item.color} {item.shape} {VERBS[item.shape]}" for item in items]
    return f"{OPENINGS[len(items)]}, {' and '.join(filter(None, (', '.join(before), last)))}!"


STYLES = {"concise": _concise, "detailed": _detailed, "creative": _creative}


def styled_caption(scene: Scene, style: str) -> str:
    """The scene's caption in a style of `STYLES`; items from left to right, as in the bases' own captions."""
    return STYLES[style](scene, sorted(scene.items, key=lambda item: (item.x, item.y)))


def objects_in(caption: str) -> set[tuple[str, str]]:
    """The objects that a caption names, as (colour, shape)."""
    return set(re.findall(rf"\b{OBJECT}\b", caption.lower()))


def follows_style(caption: str, style: str) -> bool:
    """Whether a caption is worded as its style asks; whether it is true is another matter."""
    if style == "concise":
        return bool(re.fullmatch(rf"{OBJECT}(, {OBJECT}){{0,3}}", caption))
    sentences = re.findall(r"[^.!]+[.!]", caption)
    if "".join(sentences) != caption:
        return False
    if style == "detailed":
        return (
            len(sentences) > 2
            and sentences[0].startswith("The picture shows")
            and sentences[-1].startswith(" The background is")
        )
    return len(sentences) == 1 and caption.startswith(tuple(OPENINGS.values())) and caption.endswith("!")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for name, pictures in splits().items():
        rows = []
        for image_name, scene, _ in pictures:
            if not np.array_equal(render(scene), np.asarray(Image.open(FOLDER / "images" / image_name))):
                parser.exit(1, f"{image_name} is not the scene that would be described; run make_drawings.py\n")
            rows += [(image_name, styled_caption(scene, style), style) for style in STYLES]
        with open(arguments.output / f"captions_{name}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("image_name", "caption", "style"))
            writer.writerows(rows)
        print(f"{name}: {len(pictures)} pictures, {len(rows)} captions")


if __name__ == "__main__":
    main()
