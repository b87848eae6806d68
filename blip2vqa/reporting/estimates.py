"""Prints the estimates of memory and time before a run."""

from blip2vqa.reporting.tables import make_table, plain, terminal
from blip2vqa.utils.formatting import percent


def print_estimates(result: dict) -> None:
    """Print one table a base, memory in GiB, then what was assumed; `result` is what `blip2vqa.estimate.estimate` returns."""
    console = terminal()
    for base in result["bases"]:
        longest, found = base["longest_batch"], base["quantization"]
        title = (
            f"{base['base_model_id']}: {base['parameters']:,} parameters, {base['trainable']:,} train, {base['dtype']}\n"
            f"longest batch {longest['rows']} rows × {longest['tokens']} tokens, from {base['starts_from']}"
        )
        header = ["GiB", *found["none"]["memory"], "peak", "encoding", "an epoch", "fits"]
        rows = []
        for kind, figures in found.items():
            sizes = [f"{size / 2**30:.2f}" for size in (*figures["memory"].values(), figures["peak"])]
            times = [_durations(figures[name]) for name in ("encode_range", "epoch_range")]
            cards = [card for card, fits in figures["fits"].items() if fits]
            fits = f"{', '.join(cards)} GB" if cards else "none"
            rows.append([f"{kind} *" if figures["chosen"] else kind, *sizes, *times, fits])
        zero = [place for place in range(1, len(header) - 1) if all(row[place] in ("0.00", "0 s") for row in rows)]
        header, *rows = [[cell for place, cell in enumerate(row) if place not in zero] for row in (header, *rows)]
        table = make_table(header, rows, title)
        table.padding, table.collapse_padding = 0, True
        console.print(table)
    console.print(plain(f"* as this run would load it. Times are for this device: {result['device']}."))
    if (processes := result.get("processes", 1)) > 1:
        shared = "by as many devices as this one; what they say to each other is not counted"
        console.print(plain(f"Times are of {processes} processes, {shared}."))
    if result.get("busy"):
        share = percent(result["busy"], 0)
        console.print(
            plain(f"This machine is busy: other programs use {share} of its cores. On an idle one it is faster.")
        )
    for line in result["assumed"]:
        console.print(plain(f"Assumed: {line}."))


def _durations(limits: list[float]) -> str:
    """Write the shortest and the longest time in one unit, in two digits: 76 to 98 s."""
    shortest, longest = limits
    size, unit = (1, "s") if longest < 100 else (60, "min") if longest < 7200 else (3600, "h")
    low, high = (f"{float(f'{seconds / size:.2g}'):g}" for seconds in (shortest, longest))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"
