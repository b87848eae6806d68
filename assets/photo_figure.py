"""Draw six held-out photographs of the quick start with question, base's answer and adapter's answer: docs/quickstart.png.

    python assets/photo_figure.py runs/quickstart docs/quickstart.png

The rows are drawn by a seed, two of each of three types of question, no photograph twice: right and wrong ones as they come.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

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
    figure, axes = plt.subplots(1, len(rows), figsize=(12, 2.9), layout="constrained")
    for axis, row in zip(axes, rows.itertuples(), strict=True):
        axis.imshow(Image.open(IMAGES / row.image_name))
        axis.axis("off")
        axis.set_title(row.question, fontsize=8, wrap=True)
        right = row.generated_answer == row.answer
        axis.text(
            0.5,
            -0.06,
            f"base: {row.base_answer}",
            transform=axis.transAxes,
            ha="center",
            va="top",
            fontsize=9,
            color="#666666",
        )
        axis.text(
            0.5, -0.18, f"adapter: {row.generated_answer}", transform=axis.transAxes, ha="center", va="top", fontsize=9,
            color="#1a7f37" if right else "#c0392b", weight="bold",
        )  # fmt: skip
        if not right:
            axis.text(0.5, -0.3, f"right: {row.answer}", transform=axis.transAxes, ha="center", va="top", fontsize=9)
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
