"""Draws a comparison of systems."""

import io
import warnings

import numpy as np

from blip2vqa.evaluation.verdict import BLIND
from blip2vqa.reporting.labels import BLUE, GREY, ORANGE, accuracy_of, in_seconds, labels, types_of
from blip2vqa.utils.formatting import MISSING, percent

TYPES_DRAWN = 8


def draw_systems(result: dict) -> bytes:
    """Draw accuracies with their intervals, the blind baseline as a dashed line, and seconds a question; returns a PNG.

    Without times, accuracies by question type are drawn instead of them; without answers, the agreement instead of the
    accuracies.
    """
    from matplotlib.figure import Figure  # takes a second; and no pyplot, whose backend is the user's

    systems = [row for row in result["systems"] if row["name"] != BLIND]
    panels = [_draw_accuracy if any(row["accuracy"] is not None for row in systems) else _draw_agreement]
    if any(row["seconds_per_question"] is not None for row in systems):
        panels.append(_draw_seconds)
    elif types_of(systems):
        panels.append(_draw_types)
    names = [_plain(text) for text in labels([row["name"] for row in systems], 24)]
    figure = Figure(figsize=(1.5 + 4.5 * len(panels), 1.7 + 0.55 * max(2, len(systems))), layout="constrained")
    for number, (axes, draw) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)):
        axes.set_title(draw(axes, systems, result), fontsize=10, loc="left", pad=20)
        axes.set_ylim(len(systems) - 0.5, -0.5)
        axes.set_yticks(range(len(systems)), names if number == 0 else [""] * len(names), fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
    return to_png(figure)


def to_png(figure) -> bytes:
    """Draw a matplotlib figure as a PNG at 150 dpi."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of letters that the font does not have, drawn as boxes
        figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # else what stands between two of them is set as a formula


# Each draws one panel and returns its title.


def _draw_accuracy(axes, systems: list[dict], result: dict) -> str:
    blind = next((row for row in result["systems"] if row["name"] == BLIND), None)
    axes.barh(range(len(systems)), [row["accuracy"] for row in systems], 0.6, color=BLUE, zorder=2)
    for place, row in enumerate(systems):
        low, high = row["interval"] or (0, 0)
        if low < high:
            errors = [[max(0, row["accuracy"] - low)], [max(0, high - row["accuracy"])]]
            axes.errorbar(row["accuracy"], place, xerr=errors, color="black", capsize=3, linewidth=1.2, zorder=4)
        axes.text(1.04, place, percent(row["accuracy"]), va="center", fontsize=9)
    if blind is not None:
        share = blind["accuracy"]
        axes.axvline(share, color="black", linestyle="--", linewidth=1.2, zorder=3)
        axes.text(share, 1.015, f"{BLIND} {percent(share)}", transform=axes.get_xaxis_transform(), fontsize=8,
                  ha="left" if share < 0.2 else "center" if share < 0.8 else "right")  # fmt: skip
    axes.set_xlim(0, 1.2)  # room for the percentages
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "20", "40", "60", "80", "100%"], fontsize=8)
    axes.grid(axis="x", color=GREY, linewidth=0.6, zorder=0)
    intervals = ", 95% intervals" if systems[0]["interval"] else ""
    return f"Accuracy, {result['n']} questions on {result['images']} images{intervals}"


def _draw_seconds(axes, systems: list[dict], result: dict) -> str:
    values = [row["seconds_per_question"] for row in systems]
    drawn = axes.barh(range(len(systems)), [value or 0 for value in values], 0.6, color=ORANGE, zorder=2)
    axes.bar_label(drawn, [in_seconds(value) for value in values], fontsize=9, padding=4)
    axes.set_xlim(0, 1.17 * max(value or 0 for value in values) or 1)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=GREY, linewidth=0.6, zorder=0)
    return "Seconds a question"


def _draw_types(axes, systems: list[dict], result: dict) -> str:
    kinds = types_of(systems)
    shown = sorted(sorted(kinds, key=kinds.get, reverse=True)[:TYPES_DRAWN], key=list(kinds).index)
    cells = [[accuracy_of(row, kind) for kind in shown] for row in systems]
    names = [f"{label}\nn = {kinds[kind]}" for kind, label in zip(shown, labels(shown, 10), strict=True)]
    _draw_cells(axes, cells, names)
    return f"Accuracy by question type, %{', the commonest' * (len(shown) < len(kinds))}"


def _draw_agreement(axes, systems: list[dict], result: dict) -> str:
    names = [row["name"] for row in systems]
    _draw_cells(axes, [[result["agreement"][a][b] for b in names] for a in names], labels(names, 10))
    return f"The same answer to {result['n']} questions, %"


def _draw_cells(axes, cells: list[list[float | None]], names: list[str]) -> None:
    """Draw shares as shades and as numbers."""
    axes.imshow(np.array(cells, dtype=float), vmin=0, vmax=1, cmap="Blues", aspect="auto")  # None becomes nan
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            text = MISSING if cell is None else f"{100 * cell:.0f}"
            dark = cell is not None and cell > 0.65
            axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axes.set_xticks(range(len(names)), [_plain(name) for name in names], fontsize=8 if len(names) < 6 else 7)
    axes.tick_params(axis="x", length=0)
