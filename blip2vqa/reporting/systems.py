"""A comparison of systems for the terminal, for a spreadsheet, and as a picture."""

import io
import math
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blip2vqa.comparison import BLIND
from blip2vqa.files import write_json_atomic, write_text_atomic
from blip2vqa.predictions import to_csv
from blip2vqa.reporting.tables import MISSING, terminal

ABREAST = 6  # columns of systems in one table
LABEL_LINES = 3
TYPES_DRAWN = 8
BLUE, ORANGE, GREY = "#56B4E9", "#E69F00", "#d9d9d9"  # the first two of Okabe and Ito's colour-blind safe palette


# Terminal


def print_systems(result: dict) -> None:
    """Print what `blip2vqa.comparison.compare` returns: scores, question types, differences, agreement, notes."""
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


def _print_scores(console: Console, result: dict) -> None:
    systems = result["systems"]
    columns = {
        "accuracy\n(95 % interval)": [_with_interval(row) for row in systems],
        "VQA\naccuracy": [_percent(row.get("vqa_accuracy")) for row in systems],
        "BERTScore\nF1": [_format(row.get("bertscore_f1"), "{:.4f}") for row in systems],
        "s per\nquestion": [_seconds(row["seconds_per_question"]) for row in systems],
        "peak\nGiB": [_format(row["peak_memory"], "{:.2f}", 2**30) for row in systems],
        "para-\nmeters": [_count(row["parameters"]) for row in systems],
        "adapter": [_count(row["trained_parameters"]) for row in systems],
    }
    columns = {name: cells for name, cells in columns.items() if set(cells) != {MISSING}}
    scorers = sorted({row["bertscore_scorer"] for row in systems if row.get("bertscore_scorer")})
    title = f"Systems: {result['n']} questions, {result['images']} images with answers"
    rows = zip([row["name"] for row in systems], *columns.values(), strict=True)
    caption = f"BERTScore: {'; '.join(scorers)}" if scorers else ""
    _print_table(console, title, ["system", *columns], rows, caption=caption, full=True)
    empty = ", ".join(f"{row['name']} {row['empty_predictions']}" for row in systems if row["empty_predictions"])
    if empty:
        console.print(Text(f"Empty answers{', counted as wrong' if result['images'] else ''}: {empty}"))


def _print_types(console: Console, result: dict) -> None:
    kinds = _types(result["systems"])
    for group in _groups(result["systems"]):
        header = ["question type", "n", *_headers(console, [row["name"] for row in group])]
        cells = [[_percent(row["by_question_type"].get(kind, {}).get("accuracy")) for row in group] for kind in kinds]
        rows = [[kind, str(n), *values] for (kind, n), values in zip(kinds.items(), cells, strict=True)]
        _print_table(console, "Accuracy by question type", header, rows)


def _print_differences(console: Console, result: dict) -> None:
    rows = []
    for pair in result["differences"]:
        low, high = pair["interval"] or (None, None)
        interval = MISSING if low is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
        p = pair["p_value"]
        probability = MISSING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
        judged = "more than noise" if pair["more_than_noise"] else "within noise"
        points = _format(pair["difference"], "{:+.1f}", 0.01)
        rows.append([pair["a"], pair["b"], points, interval, probability, judged if low is not None else MISSING])
    header = ["system", "less", "points", "95 % interval", "p", "difference"]
    caption = "More than noise: the interval leaves out 0, and p, of a randomisation by image, is below 0.05"
    _print_table(console, "Differences in accuracy", header, rows, named=2, caption=caption)


def _print_agreement(console: Console, result: dict) -> None:
    for group in _groups(list(result["agreement"])):
        rows = [[a, *(_percent(shares[b]) for b in group)] for a, shares in result["agreement"].items()]
        header = ["the same answer", *_headers(console, group)]
        _print_table(console, "Agreement", header, rows)


def _print_table(
    console: Console, title: str, header: list[str], rows: Iterable, *, named: int = 1, caption: str = "", full=False
) -> None:
    """A table whose first `named` columns hold names, put into what the others leave of the line; `full`: all of them."""
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
    """Names wrapped and shortened to stand above columns of percentages that take two thirds of the line."""
    return labels(names, max(7, 2 * console.width // 3 // len(names) - 3))


def wrap(text: str, width: int) -> str:
    """Lines of at most `width` characters, broken after spaces, hyphens, slashes and the like where that can be."""
    lines = [""]
    for piece in re.findall(r"[^\s/_+,:-]*[\s/_+,:-]+|[^\s/_+,:-]+", " ".join(text.split())):
        while piece:
            space = width - len(lines[-1])
            if len(piece.rstrip()) <= space:
                lines[-1] += piece
                break
            if not lines[-1]:
                lines[-1], piece = piece[:width], piece[width:]
            lines.append("")
    return "\n".join(line.strip() for line in lines)


def labels(names: Sequence[str], width: int) -> list[str]:
    """Names as up to three lines of `width`: what is too long loses its middle, or else becomes its number."""
    found = []
    for number, name in enumerate(names, start=1):
        label, room = wrap(name, width), min(len(name), width * LABEL_LINES)
        while label.count("\n") >= LABEL_LINES:
            room -= 1
            label = wrap(f"{name[: (room - 1) // 2]}…{name[len(name) - room // 2 :]}", width)
        found.append(f"#{number}" if label in found else label)
    return found


def _types(systems: list[dict]) -> dict[str, int]:
    """Question types and how many questions there are of each."""
    return {kind: cell["n"] for row in systems for kind, cell in row["by_question_type"].items()}


def _with_interval(row: dict) -> str:
    interval = " ({:.1f}–{:.1f})".format(*(100 * bound for bound in row["interval"])) if row["interval"] else ""
    return _percent(row["accuracy"]) + interval


def _percent(share: float | None) -> str:
    return _format(share, "{:.1f} %", 0.01)


def _format(value: float | None, pattern: str, unit: float = 1) -> str:
    return MISSING if value is None else pattern.format(value / unit)


def _seconds(value: float | None) -> str:
    return _format(value, "{:.3g}" if value is None or value < 1000 else "{:.0f}")


def _count(number: int | None) -> str:
    """Parameters: 3.74 B, 5.2 M."""
    for unit, pattern in ((10**9, "{:.2f} B"), (10**6, "{:.1f} M"), (10**3, "{:.1f} k")):
        if number is not None and number >= unit:
            return _format(number, pattern, unit)
    return _format(number, "{:.0f}")


# Files


def output_paths(output_path: str | Path) -> list[Path]:
    """The table that the user names, then beside it `.json`, `.png` and `.disagreements.csv`."""
    path = Path(output_path)
    stem = path.name[:-4] if path.suffix.lower() == ".csv" else path.name
    return [path, *(path.with_name(stem + suffix) for suffix in (".json", ".png", ".disagreements.csv"))]


def write_systems(result: dict, output_path: str | Path) -> list[Path]:
    """Write what `blip2vqa.comparison.compare` returns to `output_paths`, the table last; each whole or not at all.

    Returns the paths. Raises OSError when the folder cannot be written to.
    """
    paths = table_path, json_path, chart_path, disagreements_path = output_paths(output_path)
    chart = draw_systems(result)
    write_json_atomic(json_path, result)
    _write_bytes_atomic(chart_path, chart)
    write_text_atomic(disagreements_path, to_csv(_disagreements_table(result)))
    write_text_atomic(table_path, to_csv(_systems_table(result)))
    return list(paths)


def _write_bytes_atomic(path: Path, data: bytes) -> None:
    """As `write_text_atomic`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _systems_table(result: dict) -> pd.DataFrame:
    """One row a system: text, numbers with six decimals, nothing where there is nothing."""
    kinds, records = _types(result["systems"]), []
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


# Chart


def draw_systems(result: dict) -> bytes:
    """A PNG at 150 dpi: accuracies with their intervals, blind as a dashed line, and beside them seconds a question.

    Without times, accuracies by question type stand in their place; without answers, the agreement in that of the
    accuracies.
    """
    from matplotlib.figure import Figure  # takes a second; and no pyplot, whose backend is the user's

    systems = [row for row in result["systems"] if row["name"] != BLIND]
    panels = [_draw_accuracy if any(row["accuracy"] is not None for row in systems) else _draw_agreement]
    if any(row["seconds_per_question"] is not None for row in systems):
        panels.append(_draw_seconds)
    elif _types(systems):
        panels.append(_draw_types)
    names = [_plain(text) for text in labels([row["name"] for row in systems], 24)]
    figure = Figure(figsize=(1.5 + 4.5 * len(panels), 1.7 + 0.55 * max(2, len(systems))), layout="constrained")
    for number, (axes, draw) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)):
        draw(axes, systems, result)
        axes.set_ylim(len(systems) - 0.5, -0.5)
        axes.set_yticks(range(len(systems)), names if number == 0 else [""] * len(names), fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of letters that the font does not have, drawn as boxes
        figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # else what stands between two of them is set as a formula


def _draw_accuracy(axes, systems: list[dict], result: dict) -> None:
    blind = next((row for row in result["systems"] if row["name"] == BLIND), None)
    title = f"Accuracy, {result['n']} questions on {result['images']} images"
    axes.set_title(title + (", 95 % intervals" if systems[0]["interval"] else ""), fontsize=10, loc="left", pad=20)
    axes.barh(range(len(systems)), [row["accuracy"] for row in systems], 0.6, color=BLUE, zorder=2)
    for place, row in enumerate(systems):
        low, high = row["interval"] or (0, 0)
        if low < high:
            errors = [[max(0, row["accuracy"] - low)], [max(0, high - row["accuracy"])]]
            axes.errorbar(row["accuracy"], place, xerr=errors, color="black", capsize=3, linewidth=1.2, zorder=4)
        axes.text(1.04, place, _percent(row["accuracy"]), va="center", fontsize=9)
    if blind is not None:
        share = blind["accuracy"]
        axes.axvline(share, color="black", linestyle="--", linewidth=1.2, zorder=3)
        axes.text(share, 1.015, f"{BLIND} {_percent(share)}", transform=axes.get_xaxis_transform(), fontsize=8,
                  ha="left" if share < 0.2 else "center" if share < 0.8 else "right")  # fmt: skip
    axes.set_xlim(0, 1.2)  # room for the percentages
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "20", "40", "60", "80", "100 %"], fontsize=8)
    axes.grid(axis="x", color=GREY, linewidth=0.6, zorder=0)


def _draw_seconds(axes, systems: list[dict], result: dict) -> None:
    axes.set_title("Seconds a question", fontsize=10, loc="left", pad=20)
    values = [row["seconds_per_question"] for row in systems]
    drawn = axes.barh(range(len(systems)), [value or 0 for value in values], 0.6, color=ORANGE, zorder=2)
    axes.bar_label(drawn, [_seconds(value) for value in values], fontsize=9, padding=4)
    axes.set_xlim(0, 1.17 * max(value or 0 for value in values) or 1)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=GREY, linewidth=0.6, zorder=0)


def _draw_types(axes, systems: list[dict], result: dict) -> None:
    kinds = _types(systems)
    shown = sorted(sorted(kinds, key=kinds.get, reverse=True)[:TYPES_DRAWN], key=list(kinds).index)
    axes.set_title(f"Accuracy by question type, %{', the commonest' * (len(shown) < len(kinds))}", fontsize=10, loc="left",
                   pad=20)  # fmt: skip
    cells = [[row["by_question_type"].get(kind, {}).get("accuracy") for kind in shown] for row in systems]
    names = [f"{label}\nn = {kinds[kind]}" for kind, label in zip(shown, labels(shown, 10), strict=True)]
    _draw_cells(axes, cells, names)


def _draw_agreement(axes, systems: list[dict], result: dict) -> None:
    names = [row["name"] for row in systems]
    axes.set_title(f"The same answer to {result['n']} questions, %", fontsize=10, loc="left", pad=20)
    _draw_cells(axes, [[result["agreement"][a][b] for b in names] for a in names], labels(names, 10))


def _draw_cells(axes, cells: list[list[float | None]], names: list[str]) -> None:
    """Shares as shades, and as numbers."""
    axes.imshow([[float("nan") if cell is None else cell for cell in row] for row in cells], vmin=0, vmax=1,
                cmap="Blues", aspect="auto")  # fmt: skip
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            text = MISSING if cell is None else f"{100 * cell:.0f}"
            dark = cell is not None and cell > 0.65
            axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axes.set_xticks(range(len(names)), [_plain(name) for name in names], fontsize=8 if len(names) < 6 else 7)
    axes.tick_params(axis="x", length=0)
