"""Draws the charts of a report as SVG that takes the page's own colors, light or dark."""

import io
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from blip2vqa.evaluation.calibration import accuracy_by_share, reliability
from blip2vqa.reporting.labels import BLUE, ORANGE

INK = "#010203"
"""Stands for the page's text color, which matplotlib has no name for."""
GRID = "#88888855"


def draw_training(history: Sequence[dict]) -> Markup | None:
    """Draw loss and validation score by step, from what Trainer logged; None where it logged nothing."""
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    held_out = [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    names = [name for name in ("eval_accuracy", "eval_cider") if any(name in entry for entry in history)]
    if not losses and not held_out:
        return None
    axes, figure = _axes(2 if names else 1)
    for values, label, color in ((losses, "training", BLUE), (held_out, "validation", ORANGE)):
        if values:
            axes[0].plot(*zip(*values, strict=True), color=color, label=label, marker="o", markersize=3)
    axes[0].set_title("Loss by step")
    axes[0].legend(frameon=False, labelcolor=INK)
    for name in names:
        values = [(entry["step"], entry[name]) for entry in history if name in entry]
        axes[1].plot(*zip(*values, strict=True), color=ORANGE, marker="o", markersize=3)
        axes[1].set_title(f"Validation {name.removeprefix('eval_')} by step")
    return _to_svg(figure, "Loss and validation score by step; the numbers stand in the table below")


def draw_calibration(probabilities: Mapping[str, Sequence[float]], right: Sequence[bool]) -> Markup:
    """Draw the share that is right against what was said of it, and the accuracy against the share of questions answered.

    `probabilities`: by what they are called, one an answer.
    """
    axes, figure = _axes(2)
    axes[0].plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
    for (name, values), color in zip(probabilities.items(), (BLUE, ORANGE), strict=False):
        means, shares, counts = zip(*reliability(values, right), strict=True)
        axes[0].plot(means, shares, color=color, label=name, zorder=2)
        sizes = [10 + 120 * count / len(right) for count in counts]
        axes[0].scatter(means, shares, s=sizes, color=color, zorder=3)
        axes[1].plot(*accuracy_by_share(values, right), color=color, label=name)
    axes[0].set_title("Share right, by confidence or probability")
    axes[1].set_title("Accuracy of the surest answers, by their share")
    for one in axes:
        one.set_xlim(0, 1)
        one.set_ylim(0, 1.02)
    axes[0].legend(frameon=False, labelcolor=INK)
    return _to_svg(figure, "Reliability diagram, and accuracy against the share of questions answered")


def _axes(count: int) -> tuple[list, object]:
    from matplotlib.figure import Figure  # takes a second; and no pyplot, whose backend is the user's

    figure = Figure(figsize=(4.4 * count, 2.9), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        one.set_facecolor("none")
        one.tick_params(colors=INK, labelsize=8)
        one.title.set(color=INK, fontsize=9)
        one.grid(color=GRID, linewidth=0.6)
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(GRID)
    return axes, figure


def _to_svg(figure, label: str) -> Markup:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    return Markup(svg.replace("<svg", Markup('<svg role="img" aria-label="{}"').format(label), 1))
