"""Print what the commands of exchange.py found."""

from pathlib import Path

from rich.table import Table

from blip2vqa.adapters.files.card import is_hub_id
from blip2vqa.evaluation.metrics import METRICS
from blip2vqa.reporting.tables import format_block, plain, terminal
from blip2vqa.utils.console import called
from blip2vqa.utils.formatting import MISSING, as_text, percent, points
from blip2vqa.utils.terminal import one_line


def print_written(report: dict) -> None:
    """Print the report of a command that wrote an adapter or a model: its entries that fit on one line each."""
    pairs = []
    for key, value in report.items():
        if key == "notes":
            pairs += [("note", note) for note in value]
        elif isinstance(value, str | int | float):
            pairs.append((key.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value)))
    print(format_block("Written", pairs))


def print_store(adapters: list[dict]) -> None:
    """Print the table of a store's adapters, then those that are not usable."""
    if not adapters:
        print(f"The store is empty; put an adapter into it with: {called('exchange')} add ADAPTER")
        return
    table, broken = Table(), []
    for name in ("name", "task", "base", "rank", "roles", "score", "blind", "MB", "date"):
        numeric = name in ("rank", "score", "blind", "MB")
        wraps = not numeric and name != "date"
        table.add_column(name, justify="right" if numeric else "left", no_wrap=not wraps, overflow="fold")
    for one in adapters:
        if one.get("problem"):
            broken.append(one["problem"])
            continue
        score = one.get("score") or {}
        table.add_row(
            plain(one["name"]), plain(one.get("task") or MISSING), plain(_base(one.get("base"))),
            as_text(one.get("rank"), "{:.0f}"), plain(_roles(one.get("roles") or [])),
            _score(score, "adapter"), _score(score, "blind"), f"{one['size'] / 1e6:.1f}", plain(one["date"][:10]),
        )  # fmt: skip
    if table.row_count:
        terminal().print(table)
    for problem in broken:
        print(f"not usable: {one_line(problem)}")


def _score(score: dict, whose: str) -> str:
    """Write one score for the table: a share as a percentage alone, any other metric with its name."""
    metric = METRICS.get(score.get("metric"))
    if metric is None or metric.is_share:
        return percent(score.get(whose))
    return as_text(score.get(whose), metric.title + " {:.2f}")


def _base(name: str | None) -> str:
    """Shorten a base to its Hub id, or to the last part of a folder's path."""
    return MISSING if not name else name if is_hub_id(name) else Path(name).name


def _roles(labels: list[str]) -> str:
    """Write `["q", "v", "qformer q", "qformer v"]` as `q v` and `qformer q v`, a line each."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        scope, _, role = label.rpartition(" ")
        groups.setdefault(scope, []).append(role)
    return "\n".join(f"{scope} {' '.join(roles)}".strip() for scope, roles in groups.items()) or MISSING


def print_check(found: dict) -> None:
    """Print a verdict with its reasons, and the command that moves the adapter where that is possible."""
    parts = ", ".join(f"{part} {how}" for part, how in found["parts"].items())
    pairs = [("adapter", found["adapter"]), ("base", found["base"])]
    pairs += [("parts", parts)] if parts else []
    pairs += [("because", "\n".join(found["reasons"]))] if found["reasons"] else []
    if found["verdict"] == "convertible":
        how = "exactly" if found["move"] == "exact" else "as an initialisation, unless a table shows its worth"
        pairs.append(
            ("move it", f"{called('exchange')} transfer {found['adapter']} {found['base']} --output NEW  ({how})")
        )
    print(format_block(found["verdict"], pairs))


_STATES = {
    "exact": "exact: the same weights lie under it, so that it adds what it added before",
    "measured": "measured: better than its new base, by more than noise",
    "initialisation": "initialisation: a start for training; nothing shows that it is worth anything here",
}


def print_moves(moves: dict[str, dict]) -> None:
    """Print what became of each adapter of a swap."""
    for name, move in moves.items():
        print(f"{one_line(name)}:")
        print_move(move)


def print_move(move: dict) -> None:
    """Print how an adapter was moved, and its scores where it was measured."""
    if move["method"] is None:
        print(format_block("Not moved", [("because", "\n".join(move["reasons"]))]))
        return
    measured = move["measured"]
    pairs = [("method", move["method"]), ("state", _STATES[move["state"]]), ("because", "\n".join(move["reasons"]))]
    pairs.append(("written", move["output"]))
    if measured:
        from blip2vqa.reporting.systems import print_scores

        print_scores(measured)
        gain = measured["gain"]
        line = f"{points(gain['moved'])} points (moved adapter less target base)"
        if gain["direct"] is not None:
            line += f"; trained directly {points(gain['direct'])}"
        if gain["recovered"] is not None:
            line += f"; recovered {percent(gain['recovered'], 0)}"
        pairs.append(("gain", line))
    print(format_block("Moved", pairs))
