"""Prints a comparison of systems, and writes it as tables, JSON and a chart."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blip2vqa.data.readers import to_csv
from blip2vqa.evaluation.compare import BLIND
from blip2vqa.evaluation.metrics import metrics_shown, scorers_of
from blip2vqa.reporting.charts import draw_systems
from blip2vqa.reporting.labels import in_seconds, labels, types_of, wrap
from blip2vqa.reporting.tables import terminal
from blip2vqa.utils.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from blip2vqa.utils.formatting import MISSING, as_text, percent, points

ABREAST = 6  # columns of systems in one table


# Terminal


def print_systems(result: dict) -> None:
    """Print what `blip2vqa.evaluation.compare.compare` returns: scores, question types, differences, agreement, notes."""
    console = terminal()
    _print_scores(console, result)
    if any(row["by_question_type"] for row in result["systems"]):
        _print_types(console, result)
    if any(pair["difference"] is not None for pair in result["differences"]):
        _print_differences(console, result)
    if len(result["agreement"]) > 1:
        _print_agreement(console, result)
    for note in result["notes"]:
        console.print(Text(note))


def print_scores(result: dict) -> None:
    """Print the scores alone, and the notes that are not about pairs."""
    console = terminal()
    _print_scores(console, result)
    for note in result["notes"]:
        if "pairs" not in note:
            console.print(Text(note))


def _print_scores(console: Console, result: dict) -> None:
    systems = result["systems"]
    columns = {}
    for metric in metrics_shown(systems):
        heading, cells = metric.title.replace(" ", "\n"), [metric.show(row.get(metric.name)) for row in systems]
        if metric.name == "accuracy":
            heading += "\n(95% interval)"
            cells = [cell + _interval(row) for cell, row in zip(cells, systems, strict=True)]
        columns[heading] = cells
    columns |= {
        "s per\nquestion": [in_seconds(row["seconds_per_question"]) for row in systems],
        "peak\nGiB": [as_text(row["peak_memory"], "{:.2f}", 2**30) for row in systems],
        "para-\nmeters": [_count(row["parameters"]) for row in systems],
        "adapter": [_count(row["trained_parameters"]) for row in systems],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {MISSING}}
    scorers = scorers_of(systems)
    title = f"Systems: {result['n']} questions, {result['images']} images with answers"
    rows = zip([row["name"] for row in systems], *columns.values(), strict=True)
    caption = f"BERTScore: {'; '.join(scorers)}" if scorers else ""
    _print_table(console, title, ["system", *columns], rows, caption=caption, full=True)
    empty = ", ".join(f"{row['name']} {row['empty_predictions']}" for row in systems if row["empty_predictions"])
    if empty:
        console.print(Text(f"Empty answers{', counted as wrong' if result['images'] else ''}: {empty}"))


def _print_types(console: Console, result: dict) -> None:
    kinds = types_of(result["systems"])
    for group in _groups(result["systems"]):
        header = ["question type", "n", *_headers(console, [row["name"] for row in group])]
        cells = [[percent(row["by_question_type"].get(kind, {}).get("accuracy")) for row in group] for kind in kinds]
        rows = [[kind, str(n), *values] for (kind, n), values in zip(kinds.items(), cells, strict=True)]
        _print_table(console, "Accuracy by question type", header, rows)


def _print_differences(console: Console, result: dict) -> None:
    rows = []
    for pair in result["differences"]:
        low, high = pair["interval"] or (None, None)
        interval = MISSING if low is None else f"{points(low)} to {points(high)}"
        p = pair["p_value"]
        probability = MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
        judged = "more than noise" if pair["more_than_noise"] else "within noise"
        rows.append(
            [
                pair["a"],
                pair["b"],
                points(pair["difference"]),
                interval,
                probability,
                judged if low is not None else MISSING,
            ]
        )
    header = ["system", "less", "points", "95% interval", "p", "difference"]
    caption = "More than noise: the interval leaves out 0, and p, of a randomisation by image, is below 0.05"
    _print_table(console, "Differences in accuracy", header, rows, named=2, caption=caption)


def _print_agreement(console: Console, result: dict) -> None:
    for group in _groups(list(result["agreement"])):
        rows = [[a, *(percent(shares[b]) for b in group)] for a, shares in result["agreement"].items()]
        header = ["the same answer", *_headers(console, group)]
        _print_table(console, "Agreement", header, rows)


def _print_table(
    console: Console, title: str, header: list[str], rows: Iterable, *, named: int = 1, caption: str = "", full=False
) -> None:
    """Print a table whose first `named` columns hold names, fitted into the room that the others leave.

    With `full`, names are wrapped but never shortened.
    """
    columns = [list(cells) for cells in zip(header, *rows, strict=True)]
    widths = [max(len(line) for cell in cells for line in cell.splitlines() or [""]) for cells in columns]
    room = (console.width - 1 - 3 * len(header) - sum(widths[named:])) // named  # a column has two spaces and a line
    names = list(dict.fromkeys(cell for cells in columns[:named] for cell in cells[1:]))
    short = [wrap(name, max(8, room)) for name in names] if full else labels(names, max(8, room))
    shown = dict(zip(names, short, strict=True))
    table = Table(title=Text(title), caption=Text(caption) if caption else None)
    for place, name in enumerate(header):
        table.add_column(Text(name), justify="left" if place < named else "right", no_wrap=True)
    for cells in zip(*(cells[1:] for cells in columns), strict=True):
        # Text, because a user's name may hold square brackets, which rich would read as markup.
        table.add_row(*(Text(shown[cell] if i < named else cell) for i, cell in enumerate(cells)))
    console.print(table)


def _groups(items: list) -> list[list]:
    size = math.ceil(len(items) / math.ceil(len(items) / ABREAST))  # equal ones: 4 and 4, not 6 and 2
    return [items[start : start + size] for start in range(0, len(items), size)]


def _headers(console: Console, names: list[str]) -> list[str]:
    """Wrap and shorten names to stand above columns of percentages that take two thirds of the line."""
    return labels(names, max(7, 2 * console.width // 3 // len(names) - 3))


def _interval(row: dict) -> str:
    return " ({:.1f}–{:.1f})".format(*(100 * bound for bound in row["interval"])) if row["interval"] else ""


def _count(number: int | None) -> str:
    """Write a number of parameters: 3.74 B, 5.2 M."""
    for unit, pattern in ((10**9, "{:.2f} B"), (10**6, "{:.1f} M"), (10**3, "{:.1f} k")):
        if number is not None and number >= unit:
            return as_text(number, pattern, unit)
    return as_text(number, "{:.0f}")


# Files


def output_paths(output_path: str | Path) -> list[Path]:
    """List the files: the table that the user names, then beside it `.json`, `.png` and `.disagreements.csv`."""
    path = Path(output_path)
    stem = path.name[:-4] if path.suffix.lower() == ".csv" else path.name
    return [path, *(path.with_name(stem + suffix) for suffix in (".json", ".png", ".disagreements.csv"))]


def write_systems(result: dict, output_path: str | Path) -> list[Path]:
    """Write what `blip2vqa.evaluation.compare.compare` returns to `output_paths`, the table last; each whole or not at all.

    Returns the paths. Raises OSError when the folder cannot be written to.
    """
    paths = table_path, json_path, chart_path, disagreements_path = output_paths(output_path)
    chart = draw_systems(result)
    write_json_atomic(json_path, result)
    write_bytes_atomic(chart_path, chart)
    write_text_atomic(disagreements_path, to_csv(_disagreements_table(result)))
    write_text_atomic(table_path, to_csv(_systems_table(result)))
    return list(paths)


def _systems_table(result: dict) -> pd.DataFrame:
    """Make one row a system; numbers have six decimals, and cells without a value are empty."""
    kinds, records = types_of(result["systems"]), []
    for row in result["systems"]:
        flat = {}
        for key, value in row.items():
            if key in ("interval", "vqa_interval"):
                prefix = "accuracy" if key == "interval" else "vqa_accuracy"
                flat[f"{prefix}_low"], flat[f"{prefix}_high"] = value or (None, None)
            elif key != "by_question_type":
                flat[key] = value
        for kind in kinds:
            flat[f"accuracy {kind}"] = row["by_question_type"].get(kind, {}).get("accuracy")
        records.append({key: _cell(value) for key, value in flat.items()})
    return pd.DataFrame(records).fillna("")


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)


def _disagreements_table(result: dict) -> pd.DataFrame:
    fixed = ["row", "image_name", "question", "answer"]
    names = [row["name"] for row in result["systems"] if row["name"] != BLIND]
    rows = [
        [*(str(row[key]) for key in fixed), *(row["said"][name] for name in names)] for row in result["disagreements"]
    ]
    return pd.DataFrame(rows, columns=[*fixed, *(f"{name} (said)" if name in fixed else name for name in names)])
