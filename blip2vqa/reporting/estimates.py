"""Prints the estimates of memory and time before a run."""

from blip2vqa.reporting.tables import make_table, plain, terminal


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
            times = [_duration(figures[name]) for name in ("encode_seconds", "epoch_seconds")]
            cards = [card for card, fits in figures["fits"].items() if fits]
            fits = f"{', '.join(cards)} GB" if cards else "none"
            rows.append([f"{kind} *" if figures["chosen"] else kind, *sizes, *times, fits])
        table = make_table(header, rows, title)
        table.padding, table.collapse_padding = 0, True
        console.print(table)
    console.print(plain(f"* as this run would load it. Times are for this device: {result['device']}."))
    for line in result["assumed"]:
        console.print(plain(f"Assumed: {line}."))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.3g} s" if seconds < 100 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
