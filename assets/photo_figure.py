"""Draw six held-out photographs of the quick start with question, base's answer and adapter's answer: docs/quickstart.png.

    python assets/photo_figure.py runs/quickstart docs/quickstart.png

The rows are drawn by a seed, two of each of three types of question, no photograph twice: right and wrong ones as they come.
"""

import argparse
import sys
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blip2vqa.generate.filter.agreement import answers_match

IMAGES = Path(__file__).parent / "photos" / "images"
TYPES = ("department", "color", "box")


def draw_rows(predictions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw two rows of each of `TYPES`, no photograph twice."""
    shuffled = predictions.sample(frac=1, random_state=seed).drop_duplicates("image_name")
    return pd.concat([shuffled[shuffled["question_type"] == kind].head(2) for kind in TYPES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the quick start's run")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = draw_rows(pd.read_csv(arguments.run / "predictions.csv", dtype=str, keep_default_na=False), arguments.seed)
    figure, axes = plt.subplots(1, len(rows), figsize=(12, 3.2))
    for axis, row in zip(axes, rows.itertuples(), strict=True):
        with Image.open(IMAGES / row.image_name) as picture:
            axis.imshow(ImageOps.pad(picture.convert("RGB"), (128, 128), color="white"))
        axis.axis("off")
        axis.set_title(textwrap.fill(row.question, 24), fontsize=9)
        right = answers_match(row.answer, row.generated_answer)
        lines = [
            (f"base: {row.base_answer}", "#666666"),
            (f"adapter: {row.generated_answer}", "#1a7f37" if right else "#c0392b"),
        ]
        lines += [] if right else [(f"right: {row.answer}", "black")]
        for place, (text, color) in enumerate(lines):
            axis.text(0.5, -0.08 - 0.13 * place, text, transform=axis.transAxes, ha="center", va="top", color=color)
    figure.savefig(arguments.output, dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    main()
