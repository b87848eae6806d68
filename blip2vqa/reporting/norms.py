"""Show what an adapter holds, on the terminal and as a picture: how much it adds, by layer and role."""

import numpy as np
from rich.table import Table
from rich.text import Text

from blip2vqa.adapters.validation.manifest_schema import USES
from blip2vqa.evaluation.metrics import main_metric
from blip2vqa.reporting.charts import to_png
from blip2vqa.reporting.labels import wrap
from blip2vqa.reporting.tables import format_block, make_table, terminal
from blip2vqa.utils.formatting import MISSING


def print_inspection(report: dict) -> None:
    """Print what `blip2vqa.exchange.inspecting.inspect` found: facts, then a table of ‖ΔW‖ for each stack of layers."""
    console = terminal()
    console.print(Text(format_block(f"Adapter {report['name']}", _facts(report))))
    pairs = []
    for stack, norms in report["norms"].items():
        if norms["layers"] == [None]:
            pairs.append((stack, f"‖ΔW‖ {_number(norms['by_layer'][0])}"))
        else:
            console.print(_table(stack, norms))
    for row in report["whole"]:
        shape = " × ".join(map(str, row["shape"]))
        pairs.append((row["name"], f"held whole: {shape}, ‖W‖ {_number(row['norm'])}"))
    if pairs:
        console.print(Text(format_block("Beside the layers", pairs)))
    for note in report["notes"]:
        console.print(Text(f"note: {note}"))


def _facts(report: dict) -> list[tuple[str, str]]:
    modules, manifest = report["modules"], report["manifest"]
    revision = report["base_model_revision"]
    base = f"{report['base_model_id'] or 'it does not say'}{f', revision {revision}' if revision else ''}"
    pairs = [("base model", base)]
    for key, use in USES.items():
        value = manifest.get(key)
        if use.label and value not in (None, [], "none"):
            pairs.append((use.label, ", ".join(value) if isinstance(value, list) else str(value)))
    if report["answers"]:
        pairs.append(("answers", f"{report['answers']:,} to choose from"))
    pairs += _scores(manifest)
    pairs += [
        ("modules", f"{len(modules)} of rank {_several(modules, 'rank')}, scaling {_several(modules, 'scaling')}"),
        ("parameters", f"{report['parameters']:,} in {_several(modules, 'dtype')}, {report['bytes'] / 1e6:.1f} MB"),
        ("‖ΔW‖", _number(report["norm"])),
    ]
    idle = report["untrained"]
    if idle:
        shown = "all of them: it changes nothing" if len(idle) == len(modules) else ", ".join(idle[:3])
        pairs.append(("untrained", f"{len(idle)} modules, B is zero ({shown}{', …' if len(idle) > 3 else ''})"))
    origin = manifest.get("origin")
    if origin:
        made_of = ", ".join(str(one.get("name")) for one in origin.get("of", []))
        pairs.append(("made by", f"{origin.get('command')} of {made_of}"))
    return [*pairs, ("sha256", report["sha256"])]


def _scores(manifest: dict) -> list[tuple[str, str]]:
    """Write the main metric of its task, of the adapter and of the blind baseline, as far as they are known."""
    scores = manifest.get("metrics") or {}
    main = main_metric(scores.get("adapter") or {})
    if main is None:
        return []
    blind = (scores.get("blind") or {}).get(main.name)
    pairs = [(main.title, main.show(scores["adapter"][main.name]))]
    return pairs if blind is None else [*pairs, (f"blind baseline, {main.title}", main.show(blind))]


def _several(modules: list[dict], key: str) -> str:
    """Write the values of some modules as one, a few or a range."""
    values = sorted({row[key] for row in modules})
    shown = [value if isinstance(value, str) else f"{value:.4g}" for value in values]
    return ", ".join(shown) if len(shown) < 5 else f"{shown[0]} to {shown[-1]}"


def _table(stack: str, norms: dict) -> Table:
    columns = zip(norms["layers"], norms["cells"], norms["by_layer"], strict=True)
    rows = [[str(layer), *map(_number, (*cells, total))] for layer, cells, total in columns]
    table = make_table(["layer", *norms["roles"], "all"], rows, f"‖ΔW‖ in {stack}", named=0)
    table.add_section()
    whole = sum(value**2 for value in norms["by_role"]) ** 0.5
    table.add_row("all", *(_number(value) for value in (*norms["by_role"], whole)))
    return table


def _number(value: float | None) -> str:
    """Write a number with three digits; None as a dash."""
    return MISSING if value is None else f"{value:#.3g}".rstrip(".") if value else "0"


def draw_norms(report: dict) -> bytes:
    """Draw ‖ΔW‖ as shades, layer by layer and role by role, a panel for each stack of layers; return a PNG at 150 dpi.

    A crossed square is untrained; an empty one is no part of the adapter. All panels share one scale.
    """
    from matplotlib.figure import Figure  # imported late since it takes a second; pyplot would choose a backend

    stacks = {stack: norms for stack, norms in report["norms"].items() if norms["layers"] != [None]} or report["norms"]
    widths = [max(2.2, 0.55 * len(norms["roles"])) for norms in stacks.values()]
    tallest = max((len(norms["layers"]) for norms in stacks.values()), default=1)
    figure = Figure(figsize=(1.6 + sum(widths) + 0.7 * len(widths), 1.7 + 0.2 * max(6, tallest)), layout="constrained")
    panels = figure.subplots(1, max(1, len(stacks)), squeeze=False, width_ratios=widths or None)[0]
    top = max((cell for norms in stacks.values() for row in norms["cells"] for cell in row if cell), default=1)
    for axes, (stack, norms) in zip(panels, stacks.items(), strict=False):
        shades = _draw_stack(axes, stack, norms, top)
    if stacks:
        figure.colorbar(shades, ax=panels, label="‖ΔW‖", shrink=0.8)
    return to_png(figure)


def _draw_stack(axes, stack: str, norms: dict, top: float):
    values = np.array(norms["cells"], dtype=float)  # None becomes nan
    shades = axes.imshow(values, vmin=0, vmax=top, cmap="viridis", aspect="auto")
    for y, x in np.argwhere(values == 0):
        axes.text(x, y, "×", ha="center", va="center", fontsize=9, color="white")
    axes.set_title(wrap(stack.replace(".", ". "), 24).replace(". ", "."), fontsize=8, loc="left")
    axes.set_xticks(range(len(norms["roles"])), [wrap(role, 6) for role in norms["roles"]], fontsize=8)
    step = 1 if len(values) <= 16 else 4
    shown = range(0, len(values), step)
    axes.set_yticks(shown, [str(norms["layers"][place]) for place in shown], fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return shades
