"""What a made data set holds and what was dropped on the way, on the screen and in words."""

import re
from pathlib import Path

from rich.table import Table
from rich.text import Text

from blip2vqa.reporting.labels import percent
from blip2vqa.reporting.tables import format_block, terminal

REASONS_SHOWN = 5


def print_summary(summary: dict) -> None:
    """Print what was made and where: filters, types, what is right without the picture; `summary` as for `data_card`."""
    console = terminal()
    funnel, types, blind = summary.get("funnel") or [], types_by_size(summary), summary.get("blind") or {}
    steps = [[step["step"], f"{step['left']:,}", f"{step['dropped']:,}", reasons_line(step)] for step in funnel]
    if steps:
        console.print(_screen_table("Filters", ["step", "left", "dropped", "why"], steps))
    rows = []
    for kind, cell in types.items():
        answer, n = ranked(cell["answers"])[0]
        rows.append([kind, f"{cell['n']:,}", f"{len(cell['answers']):,}", percent(n / cell["n"]), answer])
    if rows:
        console.print(_screen_table("Questions", ["question type", "n", "answers", "share", "commonest answer"], rows))
    counts, cost = summary["counts"], summary.get("cost")
    known = [f"{key} {percent(blind[key])}" for key in ("after", "before", "limit") if blind.get(key) is not None]
    catalogue, table = summary["catalogue"], Path(summary["output_path"])
    left_out = [f"{n:,} {reason}" for reason, n in ranked(catalogue.get("left_out") or {})]
    pairs = [
        (
            "pictures",
            f"{counts['pictures']:,} of {counts['products']:,} products, from {catalogue['listings']:,} listings",
        ),
        ("left out", "\n".join(left_out)),
        ("questions", f"{counts['questions']:,}, {counts['questions'] / (counts['pictures'] or 1):.1f} a picture"),
        ("right without the picture", ", ".join(known) or "not measured"),
        ("cost", cost and cost_line(cost)),
        ("table", f"{table}, and train, val and test beside it"),
        ("every question", f"{table.with_suffix('.jsonl')}, with what the filters said"),
        ("data card", table.with_suffix(".md")),
        ("preview", summary.get("preview")),
    ]
    pairs = [(name, value) for name, value in pairs if value]
    print(format_block("Made", pairs))  # by itself, as rich would break the paths


def _screen_table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title)
    for place, name in enumerate(header):
        words = not all(re.fullmatch(r"[\d,.]+( %)?", row[place]) for row in rows)
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for row in rows:  # Text, because a catalogue's words may hold square brackets, which rich would read as markup
        table.add_row(*map(Text, row))
    return table


def types_by_size(summary: dict) -> dict[str, dict]:
    """Question types that have questions, the commonest first."""
    types = summary.get("question_types") or {}
    return dict(sorted(((kind, cell) for kind, cell in types.items() if cell["n"]), key=lambda pair: -pair[1]["n"]))


def ranked(counts: dict[str, int]) -> list[tuple[str, int]]:
    """The commonest first; of equal ones, by the alphabet."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def products_by_size(summary: dict) -> list[tuple[str, int]]:
    """Product types in words, with their pictures, the commonest first."""
    return [(kind.replace("_", " ") or "no type", n) for kind, n in ranked(summary.get("product_types") or {})]


def reasons_line(step: dict) -> str:
    pairs = ranked(step.get("reasons") or {})
    rest = sum(n for _, n in pairs[REASONS_SHOWN:])
    pairs = pairs[:REASONS_SHOWN] + ([("others", rest)] if rest else [])
    return "; ".join(f"{reason} {n:,}" for reason, n in pairs)


def cost_line(cost: dict) -> str:
    text = f"{cost['answers']:,} answers, {cost['input_tokens']:,} tokens sent, {cost['output_tokens']:,} received"
    return text + (f", {cost['usd']:.2f} US dollars" if cost.get("usd") is not None else "")
