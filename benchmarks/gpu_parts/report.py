"""What a person reads: a line for each step as it is done, and the summary as JSON and as a page."""

import time
from pathlib import Path

from rich.console import Console

from blip2vqa.utils.files import write_json_atomic, write_text_atomic
from gpu_parts.plan import Done, Part, left

AIMS = {"speedup": 6.0, "share_of_matmul": 0.45}
"""What training is to reach on a GPU: times the plain way, and share of a large matrix product's rate."""


def is_right(done: Done) -> bool:
    """Whether nothing is wrong with a step: it did not fail, and no check of it did. Speed is no matter of right."""
    if "failed" in done.outcome:
        return False
    checks = done.outcome.get("result") if done.part.kind == "right" else None
    return all(check["right"] is not False for check in checks or [])


def compares(done: Done) -> bool:
    """Whether a step has a check that is judged."""
    checks = done.outcome.get("result") if done.part.kind == "right" else None
    return any(check["right"] is not None for check in checks or [])


def verdict(summary: dict) -> tuple[int, str]:
    """The exit code and what it stands for: 0 nothing is wrong, 1 something is, 3 nobody knows yet."""
    if summary["wrong"]:
        return 1, f"{len(summary['wrong'])} lines say what is wrong"
    if summary["right"]:
        return 0, "nothing is wrong"
    if summary["right_steps_left"]:
        return 3, f"{summary['right_steps_left']} steps of right left"
    return 3, "nothing was compared"


def lines(done: Done) -> list[str]:
    """A step in one line, with further ones for what is wrong."""
    head, outcome = f"{done.part.name}: {done.step}", done.outcome
    if "failed" in outcome:
        return [f"FAILED   {head}: {outcome['failed']}"]
    if "skipped" in outcome:
        return [f"skipped  {head}: {outcome['skipped']}"]
    say = {"right": _right, "fast": _fast, "where": _where}[done.part.kind]
    mark = "ok      " if is_right(done) else "WRONG   "
    first, *more = say(outcome["result"])
    return [f"{mark} {head}: {first}", *(f"           {line}" for line in more)]


def show(check: dict) -> str:
    """A check in words."""
    if check["value"] is None:
        return f"{check['name']}: {check['note']}"
    value = f"{check['name']}: {check['value']:.2g}"
    bound = "" if check["bound"] is None else f" (at {'least' if check['least'] else 'most'} {check['bound']:g})"
    return value + bound


def _right(checks: list[dict]) -> list[str]:
    judged = [check for check in checks if check["right"] is not None]
    wrong = [check for check in judged if not check["right"]]
    most = [check for check in judged if check["bound"] and not check["least"] and check["right"]]
    closest = max(most, key=lambda check: check["value"] / check["bound"], default=None)
    said = f"{len(judged) - len(wrong)} of {len(judged)} hold"
    said += f"; closest to its bound is {show(closest)}" if closest else ""
    return [said, *(f"wrong: {show(check)}" for check in wrong)]


def _fast(found: dict) -> list[str]:
    plain, ours = found["plain"], found["ours"]
    said = f"{ours['best']['questions_per_second']:.4g} questions/s in batches of {ours['best']['questions']}"
    if plain["best"]:
        said += f", plain {plain['best']['questions_per_second']:.4g} in {plain['best']['questions']}"
        said += f": {found['speedup']:.2f} ×"
    else:
        said += ", plain: out of memory"
    said += aim("speedup", found)
    if share := ours.get("share_of_matmul"):
        said += f"; {share:.0%} of {found['matmul_tflops']:.3g} TFLOP/s{aim('share_of_matmul', found)}"
    if ours.get("peak_bytes"):
        said += f"; peak {ours['peak_bytes'] / 2**30:.2f} GiB"
        if plain.get("peak_bytes"):
            said += f", plain {plain['peak_bytes'] / 2**30:.2f}"
        if found.get("estimate"):
            said += f", estimated {found['estimate']['tensors_bytes'] / 2**30:.2f}"
    return [said]


def aim(name: str, found: dict) -> str:
    """The aim of training beside a figure, where there is one."""
    if found["what"] != "training":
        return ""
    return f" (aim {AIMS[name]:.0%})" if name == "share_of_matmul" else f" (aim {AIMS[name]:g} ×)"


def _where(found: dict) -> list[str]:
    kernels = ", ".join(f"{kernel['share']:.0%} {kernel['name'][:60]}" for kernel in found["kernels"][:3])
    waits = sum(found["waits"].values())
    return [
        f"{found['questions']} questions in {found['seconds'] * 1e3:.3g} ms, the device idle {found['idle_share']:.0%} of it, "
        f"{found['launches']} kernels, {waits} waits; {kernels}; {found['table']}"
    ]


def summarize(
    card: dict, key: dict, planned: list[Part], done: list[Done], output: Path, minutes: float, command: str
) -> dict:
    """Write `summary.json` and `summary.md`; returns what the first holds. `right` is None where nobody knows yet."""
    started = {one.part.name: left(output / "parts" / f"{one.part.name}.json") for one in done}
    rest = {part.name: started.get(part.name, list(part.only or ["all"])) for part in planned}
    found: dict[str, dict] = {}
    for one in done:
        found.setdefault(one.part.name, {})[one.step] = one.outcome
    wrong = [line for one in done if not is_right(one) for line in lines(one)]
    todo = sum(len(rest[part.name]) for part in planned if part.kind == "right")
    known = not todo and any(map(compares, done))
    summary = {
        "card": card, "made_by": key, "command": command, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "minutes": minutes,
        "right": False if wrong else known or None, "wrong": wrong, "right_steps_left": todo,
        "left": {name: steps for name, steps in rest.items() if steps}, "aims": AIMS, "parts": found,
    }  # fmt: skip
    write_json_atomic(output / "summary.json", summary)
    write_text_atomic(output / "summary.md", page(summary, done))
    return summary


def page(summary: dict, done: list[Done]) -> str:
    """The summary as Markdown: the card, a line for each step, and every check with its bound."""
    card = summary["card"]
    facts = {
        "card": card["name"], "driver": card["driver"], "torch": card["torch"], "CUDA": card["cuda"] or card["hip"],
        "compute capability": card["capability"], "bfloat16": "yes" if card["bfloat16"] else "no",
        "memory": card["memory_bytes"] and f"{card['memory_bytes'] / 2**30:.1f} GiB", "command": f"`{summary['command']}`",
        "date": summary["date"], "code": f"{summary['made_by']['version']}, {summary['made_by']['code']}",
    }  # fmt: skip
    text = ["# On a GPU", "", *(f"- {name}: {value or '-'}" for name, value in facts.items()), "", "## Steps", ""]
    text += [f"- {line.strip()}" for one in done for line in lines(one)]
    text += [f"- not reached: {name}: {', '.join(steps)}" for name, steps in summary["left"].items()]
    text += ["", "## Checks", "", "| step | check | value | bound | |", "|---|---|---:|---:|---|"]
    for one in done:
        if one.part.kind == "right":
            text += [_check_row(one, check) for check in one.outcome.get("result") or []]
    return "\n".join(text) + "\n"


def _check_row(one: Done, check: dict) -> str:
    value = check["note"] if check["value"] is None else f"{check['value']:.3g}"
    bound = "-" if check["bound"] is None else f"{'≥' if check['least'] else '≤'} {check['bound']:g}"
    verdict = {None: "", True: "holds", False: "**wrong**"}[check["right"]]
    return f"| {one.part.name}: {one.step} | {check['name']} | {value.replace('|', '/')} | {bound} | {verdict} |"


def screen() -> Console:
    """Where lines are printed, without colors and without being cut."""
    return Console(highlight=False, markup=False, soft_wrap=True)
