"""Draw what a made data set holds."""

import io
import warnings

from blip2vqa.generate.report.data_summary import products_by_size, ranked
from blip2vqa.reporting.labels import BLUE, GREY, ORANGE
from blip2vqa.utils.formatting import percent

ANSWERS_DRAWN, TYPES_DRAWN, PRODUCTS_DRAWN = 8, 12, 15


def draw_distributions(summary: dict) -> bytes:
    """Draw a PNG at 150 dpi, 12 inches wide.

    It shows questions by type, pictures by product type, what is right without the picture, and the commonest answers within
    each question type. `summary` has the keys that `data_card` lists.
    """
    from matplotlib.figure import Figure  # takes a second; and no pyplot, whose backend is the user's

    types, products = list(summary["question_types"].items())[:TYPES_DRAWN], products_by_size(summary)
    answers = [(kind, _shares(cell)) for kind, cell in types]
    widest = max((share for _, shares in answers for _, share in shares), default=1)
    rows = [answers[place : place + 3] for place in range(0, len(answers), 3)]
    slots = [max(3, len(types), min(PRODUCTS_DRAWN, len(products)))]
    slots += [max(len(shares) for _, shares in row) for row in rows]
    heights = [0.6 + 0.24 * bars for bars in slots]  # inches
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    grid = figure.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
    shown = f" ({PRODUCTS_DRAWN} of {len(products)})" if len(products) > PRODUCTS_DRAWN else ""
    _bars(grid[0][0], "Questions by type", [(kind, cell["n"]) for kind, cell in types], slots[0])
    _bars(grid[0][1], f"Pictures by product type{shown}", products[:PRODUCTS_DRAWN], slots[0])
    _draw_blind(grid[0][2], summary["blind"], slots[0])
    for panels, row, bars in zip(grid[1:], rows, slots[1:], strict=True):
        for axes, (kind, shares) in zip(panels, row, strict=False):
            colors = [BLUE] * ANSWERS_DRAWN + [GREY]
            _bars(axes, f"{_short(kind, 24)}: answers", shares, bars, colors[: len(shares)], percent, widest)
        for axes in panels[len(row) :]:
            axes.axis("off")
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # about letters that the font lacks, which are drawn as boxes
        figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _shares(cell: dict) -> list[tuple[str, float]]:
    """Compute the shares of the commonest answers of a question type, and of all its other answers together."""
    pairs = ranked(cell["answers"])
    rest = pairs[ANSWERS_DRAWN:]
    pairs = pairs[:ANSWERS_DRAWN] + ([(f"{len(rest)} others", sum(n for _, n in rest))] if rest else [])
    return [(answer, n / cell["n"]) for answer, n in pairs]


def _draw_blind(axes, blind: dict, slots: int) -> None:
    pairs = [(key, blind[key]) for key in ("before", "after") if blind[key] is not None]
    _bars(axes, "Right without the picture", pairs, slots, ORANGE, lambda share: "")
    if not pairs:
        return
    for place, (_, share) in enumerate(pairs):  # beside the bars, where the line of the limit does not cross them
        axes.text(1.04, place, percent(share), fontsize=8, va="center")
    axes.set_xlim(0, 1.25)
    limit, below = blind["limit"], len(pairs)
    axes.plot([limit, limit], [-0.5, below], color="black", linestyle="--", linewidth=1.2, zorder=3)
    side = "left" if limit < 0.7 else "right"
    axes.text(limit, below + 0.1, f"limit {percent(limit)}", fontsize=8, ha=side, va="top")


def _bars(
    axes, title: str, pairs: list, slots: int, colors=BLUE, text="{:,}".format, widest: float | None = None
) -> None:
    """Draw horizontal bars of (name, value) in the first of `slots` rows, with their values as `text`.

    `widest` is the value whose bar has full length; default: the largest.
    """
    # Without parse_math=False what stands between two $ would be set as a formula.
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_bounds(-0.5, max(len(pairs), 1) - 0.5)
    axes.set_xticks([])
    names, values = [_short(str(name), 22) for name, _ in pairs], [value for _, value in pairs]
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.tick_params(axis="y", length=0)
    if values:
        drawn = axes.barh(range(len(values)), values, 0.7, color=colors, zorder=2)
        axes.bar_label(drawn, list(map(text, values)), fontsize=8, padding=3)
        axes.set_xlim(0, 1.25 * (widest or max(values)) or 1)
    else:
        axes.text(0.02, 0, "no data", fontsize=9, va="center")
    axes.set_ylim(slots - 0.5, -0.5)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 8]}…{text[-7:]}"
