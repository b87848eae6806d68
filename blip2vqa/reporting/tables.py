"""Prints scores and summaries on the terminal, as readable in a log file."""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blip2vqa.evaluation.metrics import metrics_shown, scorers_of
from blip2vqa.evaluation.verdict import ROWS, present_rows
from blip2vqa.utils.formatting import MISSING, percent
from blip2vqa.utils.terminal import one_line, some_lines

LOG_WIDTH = 100  # columns, at least, where the output is no terminal and has no width of its own


def print_score_table(metrics: dict, title: str) -> None:
    """Print what `blip2vqa.evaluation.scores.score` returned for the keys of `ROWS`, as many as there are, then by type."""
    present = present_rows(metrics)
    shown, scorers = metrics_shown(present.values()), scorers_of(present.values())
    rows = [
        [ROWS[key], *(metric.show(scores.get(metric.name)) for metric in shown), str(scores.get("n", MISSING))]
        for key, scores in present.items()
    ]
    caption = f"BERTScore: {'; '.join(scorers)}" if scorers else ""
    console = terminal()
    console.print(make_table(["", *(metric.title for metric in shown), "n"], rows, title, caption=caption))
    empty = {key: scores.get("empty_predictions") or 0 for key, scores in present.items()}
    if "answered" in present:
        asked = present["adapter"]["n"]
        left_out = asked - present["answered"]["n"]
        empty["adapter"] -= left_out
        console.print(
            plain(f"Left out, not sure enough: {left_out:,} of {asked:,}, which count as wrong among all {asked:,}")
        )
    counts = ", ".join(f"{ROWS[key]} {count}" for key, count in empty.items() if count)
    if counts:
        console.print(plain(f"Empty predictions, counted as wrong: {counts}"))
    if any(scores.get("by_question_type") for scores in present.values()):
        console.print(_by_question_type(present))


def terminal() -> Console:
    """Make the console that tables are printed on: the screen's, or one wide enough for them in a file."""
    console = Console(highlight=False)
    # rich takes 80 columns for a file, and breaks the table's lines there.
    return console if console.is_terminal else Console(highlight=False, width=max(LOG_WIDTH, console.width))


def make_table(
    header: Iterable[str], rows: Iterable[Iterable[str]], title: str, *, caption: str = "", named: int = 1, **options
) -> Table:
    """Build a table whose first `named` columns are aligned left, the others right; `options` are those of each column.

    What the cells hold is printed as it is, as by `plain`.
    """
    table = Table(title=plain(title), caption=plain(caption) if caption else None)
    for place, name in enumerate(header):
        table.add_column(plain(name), justify="left" if place < named else "right", **options)
    for cells in rows:
        table.add_row(*map(plain, cells))
    return table


def plain(text: str) -> Text:
    """Make what rich prints of a text: square brackets are no markup to it, and control characters become escapes."""
    return Text(some_lines(text))


def _by_question_type(present: dict[str, dict]) -> Table:
    types = [scores.get("by_question_type", {}) for scores in present.values()]
    rows = []
    for name in dict.fromkeys(name for scores in types for name in scores):
        cells = [scores.get(name, {}) for scores in types]
        counts = dict.fromkeys(str(cell["n"]) for cell in cells if "n" in cell)
        rows.append([name, *(percent(cell.get("accuracy")) for cell in cells), " / ".join(counts)])
    header = ["question type", *(ROWS[key] for key in present), "n"]
    return make_table(header, rows, "Accuracy by question type")


def format_block(title: str, pairs: Mapping[str, object] | Iterable[tuple[str, object]]) -> str:
    """Write a summary block: the title, then one aligned `key: value` line each.

    >>> print(format_block("Training", {"model": "tiny", "steps": 10}))
    Training
      model:  tiny
      steps:  10
    """
    pairs = pairs.items() if isinstance(pairs, Mapping) else pairs
    pairs = [(one_line(key), some_lines(value).split("\n")) for key, value in pairs]
    width = max((len(key) for key, _ in pairs), default=0) + 1
    indent = "\n" + " " * (width + 4)
    lines = [f"  {key + ':':<{width}}  {indent.join(value) or MISSING}" for key, value in pairs]
    return "\n".join([one_line(title), *lines])
