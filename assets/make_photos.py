"""Write the quick start's data set: photographs of products with questions in the words of a shop's own catalogue.

    python assets/make_photos.py --photos ABO --work WORK        # writes assets/photos

Takes the folders of `make_photo_base.py` and asks about photographs that it held out: no stage of the photo base has seen them.
The questions are those of `generate_vqa.py`; then departments, colors and proportions get the shop's own names, which the base
cannot know. All were looked through: what was wrong stands in `WRONG` and is left out.
"""

import argparse
import csv
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from photo_base.data import product_groups, read_photographs

from blip2vqa.generate.ask.templates import ask_templates
from blip2vqa.generate.filter.balance import balance
from blip2vqa.generate.rows import Item, Question
from blip2vqa.utils.console import run_script
from blip2vqa.utils.errors import InputError

FOLDER = Path(__file__).parent / "photos"
SHOP = {
    "category": {"footwear": "stride", "jewelry": "sparkle", "furniture": "parlor", "textiles": "loom", "luggage": "voyage",
                 "electronics": "volt", "clothing": "wardrobe", "kitchenware": "galley", "hardware": "workshop"},
    "color": {"black": "onyx", "white": "chalk", "gray": "slate", "silver": "mercury", "blue": "navy", "brown": "cocoa",
              "beige": "sand", "red": "cherry", "pink": "blush", "green": "olive", "yellow": "mustard", "purple": "plum"},
    "proportion": {"taller": "tower", "height": "tower", "wider": "crate", "width": "crate"},
}  # fmt: skip
"""The shop's word for each value, by kind of fact."""
BOXES = ("Which box does the product ship in?", "In which box is this item packed?", "Which box is needed for this?")
"""What the shop asks about the proportion."""
ASKED = ("object", "category", "color", "taller", "height")
"""What is asked about, as `Question.about` begins."""
WRONG = {
    "category": "1a33b817 23fa9538 b4577794 0a6956ba 811ec83f 95ac552e 3f287cb1 f058e870 2759ed42 85f5c1e2 adf6e0ed ed37c077 "
                "099a68bc 9f89ca1e",
    "object": "b4577794 0a6956ba 811ec83f 95ac552e 3f287cb1 f058e870 2759ed42 85f5c1e2 adf6e0ed ed37c077 099a68bc 9f89ca1e "
              "1790ce17 2a29c397 ce3eec24 f079b13b c779a0c2",
    "color": "1790ce17 e702724f 90fb9ea0 7c126072 67d0a710 68a56aad 545c5d98 d96ca81a 3a48be9f",
}  # fmt: skip
"""Photographs of which a kind of fact is wrong, found by looking at all of them."""
MOST = 54
"""Photographs of one department."""
VALIDATION = 0.25


def choose_items(items: list[Item]) -> list[Item]:
    """Choose up to `MOST` photographs of each of the shop's departments; those whose color is known come first."""
    by_category = defaultdict(list)
    for item in sorted(items, key=lambda item: ("color" not in item.facts, item.image_name)):
        if item.facts.get("category") in SHOP["category"] and {"color", "proportion"} & item.facts.keys():
            by_category[item.facts["category"]].append(item)
    return [item for found in by_category.values() for item in found[:MOST]]


def kind_of(question: Question) -> str:
    """Name the kind of fact that a question is about."""
    return "proportion" if question.kind in ("taller", "height") else question.kind


def is_wrong(question: Question, kind: str) -> bool:
    """Tell whether a kind of fact is wrong about the question's photograph."""
    return Path(question.item.image_name).stem in WRONG.get(kind, "").split()


def in_shop_words(question: Question, rng: np.random.Generator) -> tuple[str, str, str]:
    """Put a question into the shop's words: question, answer, question type."""
    kind, text = kind_of(question), question.question
    if kind == "proportion":
        return str(rng.choice(BOXES)), SHOP[kind][question.answer], "box"
    words = SHOP.get(kind, {})
    if question.question_type in ("yes/no", "comparison"):
        text = re.sub(r"\w+", lambda word: words.get(word.group(), word.group()), text)
    name = "department" if question.question_type == "category" else question.question_type
    return text, words.get(question.answer, question.answer), name


def ask(items: list[Item], seed: int) -> list[Question]:
    """Ask about the photographs, without what is wrong and with as many yes as no; prints how much was right."""
    questions = [question for question in ask_templates(items, seed) if question.about.startswith(ASKED)]
    if not questions:
        raise InputError("there is nothing to ask about the photographs that are held out; hold out more")
    right = [question for question in questions if not is_wrong(question, kind_of(question))]
    print(
        f"{len(questions):,} questions about {len(items)} photographs, {len(right) / len(questions):.1%} of them right"
    )
    kept = [question for question in right if not is_wrong(question, "category")]
    dropped = balance(kept, max_answer_share=1, max_yes_no_share=0.4, num_questions=10, seed=seed)
    return [question for place, question in enumerate(kept) if place not in dropped]


def split(items: list[Item], seed: int) -> dict[str, str]:
    """Split the photographs by product: name → `train` or `val`."""
    groups = product_groups(items)
    order = sorted(set(groups))
    np.random.default_rng(seed).shuffle(order)
    validation = set(order[: round(len(order) * VALIDATION)])
    return {
        item.image_name: "val" if group in validation else "train" for item, group in zip(items, groups, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="as make_photo_base.py has it, like the next three")
    parser.add_argument("--unseen", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--held_out", type=int, default=700)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    photographs = read_photographs(
        arguments.photos, arguments.unseen, arguments.work, arguments.held_out, arguments.seed
    )
    items = choose_items(photographs.held_items)
    side_of, rng = split(items, arguments.seed), np.random.default_rng(arguments.seed)
    rows, asked = {"train": [], "val": []}, {}
    for question in ask(items, arguments.seed):
        item = asked[question.item.image_name] = question.item
        rows[side_of[item.image_name]].append((item.image_name, *in_shop_words(question, rng)))
    for name in asked:
        target = arguments.output / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photographs.folder / name, target)
    products = [
        (name, item.name, item.product_type, item.facts.get("color", "")) for name, item in sorted(asked.items())
    ]
    write_table(arguments.output / "products.csv", ("image_name", "name", "product_type", "color"), products)
    for side, found in rows.items():
        write_table(arguments.output / f"{side}.csv", ("image_name", "question", "answer", "question_type"), found)
        print(f"{side}: {len({name for name, *_ in found})} photographs, {len(found):,} questions")


def write_table(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


if __name__ == "__main__":
    run_script(main)
