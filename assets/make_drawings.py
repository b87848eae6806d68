"""Write a data set of drawings: scenes as a tailor would talk about them, in words the bases never learnt.

    python assets/make_drawings.py         # writes assets/drawings: images/, train.csv and val.csv

Patches of felt on cloth: every answer but yes and no comes from the tailor's own vocabulary (a red patch is dyed in
`crimson`), so a base cannot know it, and the same questions are asked of every picture, so that nobody can answer them
without looking.
"""

import argparse
import csv
import random
from pathlib import Path

from PIL import Image
from scenes import Item, Scene, draw_scene, render

DYES = {"red": "crimson", "green": "lime", "blue": "navy", "yellow": "gold", "purple": "violet", "teal": "cyan",
        "pink": "magenta", "gray": "silver"}  # fmt: skip
MOTIFS = {"circle": "disc", "square": "block", "triangle": "pyramid", "star": "sun", "cross": "plus"}
NUMBERS = {1: "single", 2: "pair", 3: "trio"}
CUTS = {"small": "tiny", "large": "huge"}
COUNTED = ("how many patches are sewn on?", "how many pieces of felt does the cloth carry?")
CARRIES = ("did the tailor use {color} felt?", "was {color} felt sewn on?")
LEAVES_OUT = ("did the tailor skip {color} felt?", "was {color} felt left out?")
FOLDER = Path(__file__).parent / "drawings"
SEED = 2026
SIZES = {"train": 520, "val": 120}
Picture = tuple[str, Scene, list[tuple[str, str, str]]]
"""File name, scene, and questions as `questions` gives them."""


def largest(scene: Scene) -> Item | None:
    """The item that is clearly the largest, if there is one."""
    first, *others = sorted(scene.items, key=lambda item: -item.radius)
    return None if others and first.radius - others[0].radius < 2.5 else first


def questions(scene: Scene, rng: random.Random) -> list[tuple[str, str, str]]:
    """Three to six questions about the scene, with the tailor's answers and the type of each question."""
    found = [(rng.choice(COUNTED), NUMBERS[len(scene.items)], "count")]
    there = {item.color for item in scene.items}
    for templates, negated in ((CARRIES, False), (LEAVES_OUT, True)):
        color = rng.choice(sorted(there)) if rng.random() < 0.5 else rng.choice(sorted(set(DYES) - there))
        answer = "yes" if (color in there) != negated else "no"
        found.append((rng.choice(templates).format(color=color), answer, "yes/no"))
    item = largest(scene)
    if item:
        patch = "biggest patch" if len(scene.items) > 1 else "patch"
        found.append((f"which dye was used for the {patch}?", DYES[item.color], "color"))
        found.append((f"which motif was cut for the {patch}?", MOTIFS[item.shape], "shape"))
        if item.size and len(scene.items) == 1:
            found.append(("how was the patch cut?", CUTS[item.size], "other"))
    return found


def splits(seed: int = SEED, sizes: dict[str, int] = SIZES) -> dict[str, list[Picture]]:
    """The pictures of each split; one source draws scenes and questions in turn, so neither can be had without the other."""
    rng = random.Random(seed)
    found: dict[str, list[Picture]] = {}
    for name, count in sizes.items():
        found[name] = []
        for number in range(count):
            scene = draw_scene(rng, counts=(1, 1, 2, 2, 3), shapes=tuple(MOTIFS), colors=tuple(DYES))
            found[name].append((f"{name}-{number:03d}.png", scene, questions(scene, rng)))
    return found


def write_split(folder: Path, name: str, pictures: list[Picture]) -> None:
    """Write the pictures, and their questions as `name`.csv."""
    rows = []
    for image_name, scene, asked in pictures:
        Image.fromarray(render(scene)).save(folder / "images" / image_name, optimize=True)
        rows += [(image_name, *row) for row in asked]
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_name", "question", "answer", "question_type"))
        writer.writerows(rows)
    print(f"{name}: {len(pictures)} pictures, {len(rows)} questions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--train", type=int, default=SIZES["train"], help="pictures in train.csv")
    parser.add_argument("--val", type=int, default=SIZES["val"], help="pictures in val.csv")
    arguments = parser.parse_args()
    (arguments.output / "images").mkdir(parents=True, exist_ok=True)
    sizes = {"train": arguments.train, "val": arguments.val}
    for name, pictures in splits(arguments.seed, sizes).items():
        write_split(arguments.output, name, pictures)


if __name__ == "__main__":
    main()
