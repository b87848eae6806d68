"""Prints a comparison of systems, and writes it as tables, JSON and a chart."""

import math
from pathlib import Path

import pandas as pd
from rich.console import Console

from blip2vqa.data.readers import to_csv
from blip2vqa.evaluation.metrics import MAIN_METRICS, METRICS, metrics_shown, scorers_of
from blip2vqa.evaluation.verdict import BLIND
from blip2vqa.reporting.charts import draw_systems
from blip2vqa.reporting.labels import accuracy_of, in_seconds, labels, types_of, wrap
from blip2vqa.reporting.tables import make_table, plain, terminal
from blip2vqa.utils.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from blip2vqa.utils.formatting import MISSING, as_text, percent, points

ABREAST = 6  # columns of systems in one table


# Terminal


def print_systems(result: dict) -> None:
    """Print what `blip2vqa.evaluation.compare.compare` returns: scores, question types, differences, agreement, notes."""
    console = terminal()
    _print_scores(console, result)
    kinds = types_of(result["systems"])
    if kinds:
        accuracies = [{row["name"]: accuracy_of(row, kind) for row in result["systems"]} for kind in kinds]
        rows = [([kind, str(n)], shares) for (kind, n), shares in zip(kinds.items(), accuracies, strict=True)]
        _print_shares(console, "Accuracy by question type", ["question type", "n"], rows)
    if any(pair["difference"] is not None for pair in result["differences"]):
        _print_differences(console, result)
    if len(result["agreement"]) > 1:
        rows = [([name], shares) for name, shares in result["agreement"].items()]
        _print_shares(console, "Agreement", ["the same answer"], rows)
    for note in result["notes"]:
        console.print(plain(note))


def print_scores(result: dict) -> None:
    """Print the scores alone, and the notes that are not about pairs."""
    console = terminal()
    _print_scores(console, result)
    for note in result["notes"]:
        if "pairs" not in note:
            console.print(plain(note))


def _print_scores(console: Console, result: dict) -> None:
    systems = result["systems"]
    columns = {}
    for metric in metrics_shown(systems):
        heading, cells = metric.title.replace(" ", "\n"), [metric.show(row.get(metric.name)) for row in systems]
        if metric.name in MAIN_METRICS:
            heading += "\n(95% interval)"
            cells = [cell + _interval(row[metric.interval_key]) for cell, row in zip(cells, systems, strict=True)]
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
    rows = [list(cells) for cells in zip([row["name"] for row in systems], *columns.values(), strict=True)]
    caption = f"BERTScore: {'; '.join(scorers)}" if scorers else ""
    _print_table(console, title, ["system", *columns], rows, caption=caption, full=True)
    empty = ", ".join(f"{row['name']} {row['empty_predictions']}" for row in systems if row["empty_predictions"])
    if empty:
        console.print(plain(f"Empty answers{', counted as wrong' if result['images'] else ''}: {empty}"))


def _print_shares(console: Console, title: str, header: list[str], rows: list[tuple[list[str], dict]]) -> None:
    """Print shares by system, a few systems abreast; `rows`: what stands under `header`, and {system: share}."""
    names = list(rows[0][1])
    size = math.ceil(len(names) / math.ceil(len(names) / ABREAST))  # equal groups: 4 and 4, not 6 and 2
    for group in (names[start : start + size] for start in range(0, len(names), size)):
        # Names stand above columns of percentages that take two thirds of the line.
        short = labels(group, max(7, 2 * console.width // 3 // len(group) - 3))
        cells = [[*first, *(percent(shares[name]) for name in group)] for first, shares in rows]
        _print_table(console, title, [*header, *short], cells)


def _print_differences(console: Console, result: dict) -> None:
    rows = []
    for pair in result["differences"]:
        judged = [MISSING, MISSING, MISSING]
        if pair["interval"]:
            judged = [
                " to ".join(map(points, pair["interval"])),
                "<0.001" if pair["p_value"] < 0.001 else f"{pair['p_value']:.3f}",
                "more than noise" if pair["more_than_noise"] else "within noise",
            ]
        rows.append([pair["a"], pair["b"], points(pair["difference"]), *judged])
    header = ["system", "less", "points", "95% interval", "p", "difference"]
    caption = "More than noise: the interval leaves out 0, and p, of a randomisation by image, is below 0.05"
    _print_table(console, "Differences in accuracy", header, rows, named=2, caption=caption)


def _print_table(
    console: Console, title: str, header: list[str], rows: list[list], *, named: int = 1, caption: str = "", full=False
) -> None:
    """Print a table whose first `named` columns hold names, fitted into the room that the others leave.

    With `full`, names are wrapped but never shortened.
    """
    columns = [list(cells) for cells in zip(header, *rows, strict=True)]
    widths = [max(len(line) for cell in cells for line in cell.splitlines() or [""]) for cells in columns]
    room = (console.width - 1 - 3 * len(header) - sum(widths[named:])) // named  # a column has two spaces and a line
    names = list(dict.fromkeys(name for cells in columns[:named] for name in cells[1:]))
    short = [wrap(name, max(8, room)) for name in names] if full else labels(names, max(8, room))
    shown = dict(zip(names, short, strict=True))
    fitted = [[*(shown[name] for name in cells[:named]), *cells[named:]] for cells in rows]
    console.print(make_table(header, fitted, title, caption=caption, named=named, no_wrap=True))


def _interval(bounds: list[float] | None) -> str:
    return " ({:.1f}–{:.1f})".format(*(100 * bound for bound in bounds)) if bounds else ""


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
    intervals = {metric.interval_key: metric.name for metric in METRICS.values()}
    for row in result["systems"]:
        flat = {}
        for key, value in row.items():
            if key in intervals:
                flat[f"{intervals[key]}_low"], flat[f"{intervals[key]}_high"] = value or (None, None)
            elif key != "by_question_type":
                flat[key] = value
        for kind in kinds:
            flat[f"accuracy {kind}"] = accuracy_of(row, kind)
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
