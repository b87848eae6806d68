"""Prints scores and summaries on the terminal, as readable in a log file."""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from blip2vqa.evaluation.metrics import metrics_shown, scorers_of
from blip2vqa.evaluation.verdict import ROWS, present_rows
from blip2vqa.utils.formatting import MISSING, percent

LOG_WIDTH = 100  # columns, at least, where the output is no terminal and has no width of its own


def print_score_table(metrics: dict, title: str) -> None:
    """Print the scores of the keys of `ROWS`, as many as there are, then by question type.

    Args:
        metrics: {"base": …, "adapter": …, "blind": …, "swapped": …}, or {"predictions": …}, each as
            `blip2vqa.evaluation.scores.score` returns it.
        title: stands above the table.
    """
    present = present_rows(metrics)
    console = terminal()
    console.print(_scores(present, title))
    empty = {ROWS[key]: scores.get("empty_predictions") for key, scores in present.items()}
    counts = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
    if counts:
        console.print(Text(f"Empty predictions, counted as wrong: {counts}"))
    if any(scores.get("by_question_type") for scores in present.values()):
        console.print(_by_question_type(present))


def terminal() -> Console:
    """Make the console that tables are printed on: the screen's, or one wide enough for them in a file."""
    console = Console(highlight=False)
    # rich takes 80 columns for a file, and breaks the table's lines there.
    return console if console.is_terminal else Console(highlight=False, width=max(LOG_WIDTH, console.width))


def _scores(present: dict[str, dict], title: str) -> Table:
    shown, scorers = metrics_shown(present.values()), scorers_of(present.values())
    table = Table(title=Text(title), caption=Text(f"BERTScore: {'; '.join(scorers)}") if scorers else None)
    table.add_column("")
    for heading in (*(metric.title for metric in shown), "n"):
        table.add_column(heading, justify="right")
    for key, scores in present.items():
        values = [metric.show(scores.get(metric.name)) for metric in shown]
        table.add_row(ROWS[key], *values, str(scores.get("n", MISSING)))
    return table


def _by_question_type(present: dict[str, dict]) -> Table:
    table = Table(title="Accuracy by question type")
    table.add_column("question type")
    for key in present:
        table.add_column(ROWS[key], justify="right")
    table.add_column("n", justify="right")
    types = {key: scores.get("by_question_type", {}) for key, scores in present.items()}
    for name in dict.fromkeys(name for scores in types.values() for name in scores):
        row = [scores.get(name, {}) for scores in types.values()]
        counts = dict.fromkeys(str(cell["n"]) for cell in row if "n" in cell)
        # Text, because a user's type may hold square brackets, which rich would read as markup.
        table.add_row(Text(name), *(percent(cell.get("accuracy")) for cell in row), " / ".join(counts))
    return table


def format_block(title: str, pairs: Mapping[str, object] | Iterable[tuple[str, object]]) -> str:
    """Write a summary block: the title, then one aligned `key: value` line each.

    >>> print(format_block("Training", {"model": "tiny", "steps": 10}))
    Training
      model:  tiny
      steps:  10
    """
    pairs = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    width = max((len(key) for key, _ in pairs), default=0) + 1
    indent = "\n" + " " * (width + 4)
    lines = [f"  {key + ':':<{width}}  {indent.join(str(value).splitlines()) or MISSING}" for key, value in pairs]
    return "\n".join([title, *lines])
