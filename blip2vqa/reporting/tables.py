"""Scores and summaries for the terminal, as readable in a log file."""

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

ROWS = {
    "base": "base model",
    "adapter": "base + adapter",
    "blind": "blind baseline (no image)",
    "swapped": "adapter, images swapped",
    "predictions": "predictions",  # of any other system
}
METRICS = {
    "accuracy": "accuracy", "vqa_accuracy": "VQA accuracy", "cider": "CIDEr", "bleu4": "BLEU-4", "bertscore_f1": "BERTScore F1",
    "mean_words": "words",
}  # fmt: skip
SHARES = ("accuracy", "vqa_accuracy")  # printed as percentages
MISSING = "-"
LOG_WIDTH = 100  # columns, at least, where the output is no terminal and has no width of its own


def print_score_table(metrics: dict, title: str) -> None:
    """Print the scores of the keys of `ROWS`, as many as there are, then by question type.

    Args:
        metrics: {"base": …, "adapter": …, "blind": …, "swapped": …}, or {"predictions": …}, each as
            `blip2vqa.evaluation.scores.score` returns it.
        title: stands above the table.
    """
    present = {key: metrics[key] for key in ROWS if metrics.get(key)}
    console = terminal()
    console.print(_scores(present, title))
    empty = {ROWS[key]: scores.get("empty_predictions") for key, scores in present.items()}
    counts = ", ".join(f"{name} {count}" for name, count in empty.items() if count)
    if counts:
        console.print(Text(f"Empty predictions, counted as wrong: {counts}"))
    if any(scores.get("by_question_type") for scores in present.values()):
        console.print(_by_question_type(present))


def terminal() -> Console:
    """Where tables go: the screen, or a file wide enough for them."""
    console = Console(highlight=False)
    # rich takes 80 columns for a file, and breaks the table's lines there.
    return console if console.is_terminal else Console(highlight=False, width=max(LOG_WIDTH, console.width))


def _scores(present: dict[str, dict], title: str) -> Table:
    scorers = sorted({scores["bertscore_scorer"] for scores in present.values() if scores.get("bertscore_scorer")})
    columns = {name: title for name, title in METRICS.items() if any(name in scores for scores in present.values())}
    table = Table(title=Text(title), caption=Text(f"BERTScore: {'; '.join(scorers)}") if scorers else None)
    table.add_column("")
    for name in (*columns.values(), "n"):
        table.add_column(name, justify="right")
    for key, scores in present.items():
        values = [_number(name, scores.get(name)) for name in columns]
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
        table.add_row(Text(name), *(_percent(cell.get("accuracy")) for cell in row), " / ".join(counts))
    return table


def _number(name: str, value: float | None) -> str:
    """Shares as percentages; the others as plain numbers, since they may be negative or above 1."""
    if name in SHARES:
        return _percent(value)
    return MISSING if value is None else f"{value:.{1 if name == 'mean_words' else 4}f}"


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1%}"


def format_block(title: str, pairs: Mapping[str, object] | Iterable[tuple[str, object]]) -> str:
    """A summary block: the title, then one aligned `key: value` line each.

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


def verdict(metrics: dict) -> str:
    """One line on whether the adapter earns its score by looking, from `metrics` with `adapter` and `blind`."""
    main = "cider" if "cider" in metrics["adapter"] else "accuracy"
    if metrics["adapter"][main] <= metrics["blind"][main]:
        return "no better than the blind baseline: do not take its answers as read off the picture"
    swapped = (metrics.get("swapped") or {}).get(main)
    if swapped is None:
        return "better than the blind baseline; the images could not be swapped, there is only one"
    owed = metrics["adapter"][main] - swapped
    if owed <= 0:
        return "as good with another picture as with the right one: it does not look at the picture"
    share = f"{owed:.3f} of its CIDEr is" if main == "cider" else f"{100 * owed:.1f} points of its accuracy are"
    return f"better than the blind baseline, and {share} owed to the picture"
