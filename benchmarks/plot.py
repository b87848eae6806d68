"""The figures of `training.py` and `inference.py` as one picture: docs/performance.png.

python benchmarks/plot.py docs/measurements docs/performance.png
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {
    "one by one": "#c7c7c7",
    "plain": "#8c8c8c",
    "ours, picture new": "#7db8da",
    "ours": "#1f77b4",
    "floor": "#f0b060",
}
TRAINING = {
    "plain": "reference_seconds_per_question", "ours": "seconds_per_question", "floor": "gemm_floor_seconds_per_question",
}  # fmt: skip
INFERENCE = {
    "one by one": "seed_seconds_per_question", "plain": "reference_seconds_per_question",
    "ours, picture new": "first_seconds_per_question", "ours": "seconds_per_question",
}  # fmt: skip


def draw(axes, results: list[dict], bars: dict[str, str], title: str) -> None:
    """One group of bars a measurement, in seconds a question, the speed-up above ours."""
    width = 0.8 / len(bars)
    for place, (label, key) in enumerate(bars.items()):
        at = [group + (place - (len(bars) - 1) / 2) * width for group in range(len(results))]
        drawn = axes.bar(at, [result[key] for result in results], width, label=label, color=COLORS[label])
        if label.startswith("ours"):
            texts = [f"{result[bars['plain']] / result[key]:.1f}×" for result in results]
            axes.bar_label(drawn, texts, fontsize=8)
    shapes = [r["shape"].removeprefix("blip2-").replace("instructblip-", "instructblip\n") for r in results]
    names = [f"{name}\n{r['questions_per_image']} an image" for name, r in zip(shapes, results, strict=True)]
    axes.set_xticks(range(len(results)), names, fontsize=8)
    axes.set_ylabel("seconds a question")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    folder, output = map(Path, sys.argv[1:])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axes, kind, bars in ((left, "training", TRAINING), (right, "inference", INFERENCE)):
        results = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{kind}-*.json"))]
        draw(axes, results, bars, f"{kind}, {results[0]['machine']['device']}, {results[0]['threads']} threads")
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    main()
