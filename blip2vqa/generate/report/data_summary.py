"""The summary of a made data set on the screen, and the rows and lines of it that its card shows, too."""

import re
from pathlib import Path

from rich.table import Table

from blip2vqa.reporting.tables import format_block, plain, terminal
from blip2vqa.utils.formatting import percent

REASONS_SHOWN = 5


def print_summary(summary: dict) -> None:
    """Print what was made and where; `summary` has the keys that `data_card` lists."""
    rows = []
    for kind, cell in summary["question_types"].items():
        answer, n = ranked(cell["answers"])[0]
        rows.append([kind, f"{cell['n']:,}", f"{len(cell['answers']):,}", percent(n / cell["n"]), answer])
    _print_table("Filters", ["step", "left", "dropped", "why"], filter_rows(summary))
    _print_table("Questions", ["question type", "n", "answers", "share", "commonest answer"], rows)
    counts, cost, blind, catalogue = (summary[key] for key in ("counts", "cost", "blind", "catalogue"))
    shares = [f"{key} {percent(blind[key])}" for key in ("after", "before", "limit") if blind[key] is not None]
    table, products = Path(summary["output_path"]), f"{counts['products']:,} products"
    pairs = {
        "pictures": f"{counts['pictures']:,} of {products}, from {catalogue['listings']:,} listings",
        "left out": "\n".join(f"{n:,} {reason}" for reason, n in ranked(catalogue["left_out"])),
        "questions": f"{counts['questions']:,}, {counts['questions'] / (counts['pictures'] or 1):.1f} a picture",
        "right without the picture": ", ".join(shares) if blind["after"] is not None else "not measured",
        "cost": cost and cost_line(cost),
        "table": f"{table}, and train, val and test beside it",
        "every question": f"{table.with_suffix('.jsonl')}, with what the filters said",
        "data card": table.with_suffix(".md"),
        "preview": summary["preview"],
    }
    # Printed without rich, which would break the paths.
    print(format_block("Made", {name: value for name, value in pairs.items() if value}))


def _print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    if not rows:
        return
    table = Table(title=title)
    for place, name in enumerate(header):
        numbers = all(re.fullmatch(r"[\d,.]+ ?%?", row[place]) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    terminal().print(table)


def ranked(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Sort counts, the largest first and equal ones by the alphabet."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def products_by_size(summary: dict) -> list[tuple[str, int]]:
    """List product types in words, with their pictures, the commonest first."""
    return [(kind.replace("_", " ") or "no type", n) for kind, n in ranked(summary["product_types"])]


def filter_rows(summary: dict) -> list[list[str]]:
    """Make one row a filter: its name, questions left, questions dropped, and the commonest reasons."""
    rows = []
    for step in summary["funnel"]:
        pairs = ranked(step["reasons"])
        rest = sum(n for _, n in pairs[REASONS_SHOWN:])
        pairs = pairs[:REASONS_SHOWN] + ([("others", rest)] if rest else [])
        reasons = "; ".join(f"{reason} {n:,}" for reason, n in pairs)
        rows.append([step["step"], f"{step['left']:,}", f"{step['dropped']:,}", reasons])
    return rows


def cost_line(cost: dict) -> str:
    """List answers, tokens, and US dollars where prices were given."""
    text = f"{cost['answers']:,} answers, {cost['input_tokens']:,} tokens sent, {cost['output_tokens']:,} received"
    return text + (f", {cost['usd']:.2f} US dollars" if cost["usd"] is not None else "")
