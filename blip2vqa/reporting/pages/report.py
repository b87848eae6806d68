"""Writes `report.html`: what systems answered to questions about pictures, for a person to look through."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from blip2vqa.data.examples import Example
from blip2vqa.evaluation.calibration import calibration_error
from blip2vqa.evaluation.metrics import accuracy, metrics_shown
from blip2vqa.evaluation.scores import rows_to_score
from blip2vqa.reporting.labels import accuracy_of, types_of
from blip2vqa.reporting.pages.page import data_address, render_page, shown, shrink
from blip2vqa.reporting.pages.report_charts import draw_calibration, draw_training
from blip2vqa.utils.files import write_text_atomic
from blip2vqa.utils.formatting import percent

MOST_BYTES = 4_900_000
"""Of a report."""
MOST_ROWS = 20_000
MOST_CONFUSIONS = 20
MOST_TYPES = 50
"""Types of questions with a line of their own, the commonest."""
LONGEST = (300, 120, 60)
"""Characters shown of one text: the first where all rows fit, else fewer."""
FOR_PICTURES = 300_000
"""Bytes that texts leave to pictures."""
TEMPLATE = "reporting/pages/report.html"
THUMBNAIL, QUALITY = 192, 75
SURE = 0.8
"""From this probability on, an answer counts as a sure one."""
KINDS = {
    "r": "right",
    "w": "wrong",
    "p": "right only because of the picture",
    "s": "sure and wrong (a wrong label, perhaps)",
    "b": "changed for the better",
    "c": "changed for the worse",
    "u": "left out: not sure enough",
}
"""What rows may be: the letter in the page, and the filter's name."""


@dataclass(frozen=True)
class Report:
    """What a report shows."""

    title: str
    verdict: str
    """One sentence."""
    examples: Sequence[Example]
    answers: dict[str, Sequence[str]]
    """Of each system, one an example; the order is that of the columns."""
    judged: str
    """The system whose answers are called right or wrong."""
    systems: Sequence[dict]
    """Scores, one a system: `name`, what `evaluation.scores.score` returns, and intervals where there are any."""
    before: str | None = None
    """The system that the judged one is compared with."""
    swapped: str | None = None
    """The judged system, asked about other pictures."""
    confidences: Sequence[float | None] = ()
    """Of the judged answers; may be empty."""
    probabilities: Sequence[float | None] = ()
    """Of the judged answers to be right; may be empty."""
    left_out: Sequence[bool] = ()
    """Whether the judged answer was left out, since it was not sure enough; may be empty."""
    history: Sequence[dict] = ()
    """What was logged while it was trained."""
    notes: Sequence[str] = field(default_factory=list)


@dataclass
class Pictures:
    """The thumbnails that stand in a page."""

    data: list[str] = field(default_factory=list)
    """`data:` addresses."""
    number: dict[str, int] = field(default_factory=dict)
    """By `Example.image_key`, counted from 1."""
    missing: int = 0
    """Pictures that cannot be shown."""
    all_fit: bool = True


def write_report(path: str | Path, report: Report, open_picture: Callable[[Example], Image.Image | None]) -> None:
    """Write the page, whole or not at all; pictures stand in it as thumbnails, as many as `MOST_BYTES` have room for.

    `open_picture` returns the picture of an example, None where it cannot be shown. Raises OSError when the folder cannot be
    written to.
    """
    write_text_atomic(path, _render(report, open_picture))


def _render(report: Report, open_picture: Callable[[Example], Image.Image | None]) -> str:
    judged = {name: _right(report, name) for name in report.answers}
    right = judged[report.judged]
    known = zip(report.probabilities, report.confidences, strict=True) if report.probabilities else ()
    sure = [one if one is not None else other for one, other in known] or list(report.confidences)
    kinds = _kinds(report, judged, sure)
    types = [kind for kind, _ in Counter(one.question_type for one in report.examples).most_common(MOST_TYPES)]
    order = _vary(report.examples, kinds)[:MOST_ROWS]
    values = {
        "report": report, "title": report.title, "types": sorted(types), "by_type": _type_table(report.systems, types),
        "scores": _score_table(report.systems), "confusions": _confusions(report, right),
        "training": draw_training(report.history), "history": report.history, "calibration": _calibration(report, right),
        "certainty": "probability" if report.probabilities else "confidence" if report.confidences else "",
        "all": len(report.examples), "judged": list(report.answers).index(report.judged),
    }  # fmt: skip

    def render(longest: int, pictures: Pictures) -> str:
        rows = [_row(report, place, judged, kinds, sure, longest) for place in order]
        counts = {letter: (text, sum(letter in kinds[place] for place in order)) for letter, text in KINDS.items()}
        return render_page(TEMPLATE, **values, rows=rows, kinds=counts, longest=longest, pictures=pictures)

    for longest in LONGEST:
        size = len(render(longest, Pictures()).encode())
        if size <= MOST_BYTES - FOR_PICTURES:
            break
    while size > MOST_BYTES - FOR_PICTURES and order:
        del order[max(0, len(order) * (MOST_BYTES - FOR_PICTURES) // size - 1) :]
        size = len(render(longest, Pictures()).encode())
    pictures = _pictures([report.examples[place] for place in order], open_picture, MOST_BYTES - size)
    return render(longest, pictures)


def _row(
    report: Report, place: int, judged: dict, kinds: list[str], sure: Sequence[float | None], longest: int
) -> dict:
    return {
        "place": place,
        "example": report.examples[place],
        "answers": [shown(said[place], longest) for said in report.answers.values()],
        "marks": [None if right is None else right[place] for right in judged.values()],
        "kinds": kinds[place],
        "sure": sure[place] if sure else None,
    }


def _right(report: Report, name: str) -> list[bool | None] | None:
    """Say of each answer of a system whether it is right, None of one that cannot be; None where all are such, as captions."""
    if any(row.get("cider") is not None for row in report.systems):
        return None
    scored = {id(row.example): row for row in rows_to_score(report.examples, report.answers[name])}
    if not scored:
        return None
    scores = accuracy.compute(list(scored.values())).scores
    known = {one: score == 1 for one, score in zip(scored, scores, strict=True)}
    left_out = report.left_out if name == report.judged and report.left_out else [False] * len(report.examples)
    return [None if left else known.get(id(one)) for one, left in zip(report.examples, left_out, strict=True)]


def _kinds(report: Report, judged: dict[str, list[bool | None] | None], sure: Sequence[float | None]) -> list[str]:
    """Collect the letters of each row's `KINDS`."""
    right, before, swapped = (judged.get(name) for name in (report.judged, report.before, report.swapped))
    if right is None:
        return [""] * len(report.examples)
    found = []
    for place, is_right in enumerate(right):
        among = {
            "r": is_right,
            "w": is_right is False,
            "p": is_right and swapped and swapped[place] is False,
            "s": is_right is False and sure and (sure[place] or 0) >= SURE,
            "b": is_right and before and before[place] is False,
            "c": is_right is False and before and before[place],
            "u": report.left_out and report.left_out[place],
        }
        found.append("".join(letter for letter, holds in among.items() if holds))
    return found


def _vary(examples: Sequence[Example], kinds: list[str]) -> list[int]:
    """Order the rows so that the first of them hold every kind of row and every type of question, in turns."""
    groups: dict[tuple, list[int]] = {}
    for place, (example, kind) in enumerate(zip(examples, kinds, strict=True)):
        groups.setdefault((kind, example.question_type), []).append(place)
    turns = [(turn, number, place) for number, group in enumerate(groups.values()) for turn, place in enumerate(group)]
    return [place for _, _, place in sorted(turns)]


def _pictures(
    examples: Sequence[Example], open_picture: Callable[[Example], Image.Image | None], room: int
) -> Pictures:
    """Make thumbnails of the first pictures, as many as `room` bytes hold."""
    pictures, missing, rows = Pictures(), set(), Counter(example.image_key for example in examples)
    for example in examples:
        if example.image_key in pictures.number or example.image_key in missing:
            continue
        image = open_picture(example)
        if image is None:
            missing.add(example.image_key)
            continue
        data = data_address(shrink(image, THUMBNAIL), QUALITY)
        room -= len(data) + 80 + 60 * rows[example.image_key]  # with the rule that shows it, and its tag in each row
        if room < 0:
            pictures.all_fit = False
            break
        pictures.data.append(data)
        pictures.number[example.image_key] = len(pictures.data)
    pictures.missing = len(missing)
    return pictures


def _score_table(systems: Sequence[dict]) -> dict:
    metrics = metrics_shown(systems)

    def cell(row: dict, metric) -> str:
        bounds = row.get(metric.interval_key)
        if not bounds:
            return metric.show(row.get(metric.name))
        low, high = (f"{100 * bound:.1f}" if metric.is_share else f"{bound:.3f}" for bound in bounds)
        return f"{metric.show(row.get(metric.name))} ({low}–{high})"

    rows = [(row["name"], [cell(row, metric) for metric in metrics], row.get("n")) for row in systems]
    return {"heads": [metric.title for metric in metrics], "rows": rows, "intervals": any(
        row.get(metric.interval_key) for row in systems for metric in metrics
    )}  # fmt: skip


def _type_table(systems: Sequence[dict], types: Sequence[str]) -> list[tuple[str, int, list[str]]]:
    """List (type, questions, accuracies of the systems) of these types."""
    known = [row for row in systems if "by_question_type" in row]
    counts = types_of(known)
    return [
        (kind, counts[kind], [percent(accuracy_of(row, kind)) for row in known]) for kind in counts if kind in types
    ]


def _confusions(report: Report, right: list[bool] | None) -> list[tuple[str, str, int]]:
    """Count the wrong answers most often given: (truth, answer, rows)."""
    if right is None:
        return []
    said = report.answers[report.judged]
    wrong = Counter(
        (example.answer, said[place]) for place, example in enumerate(report.examples) if right[place] is False
    )
    return [(truth, answer, n) for (truth, answer), n in wrong.most_common(MOST_CONFUSIONS)]


def _calibration(report: Report, right: list[bool | None] | None) -> dict | None:
    """Say how far confidence, and probability, are off, with the chart; None where neither is known.

    Of answers that have both, where some have both, and that are right or wrong.
    """
    certain = {"confidence": report.confidences, "probability": report.probabilities}
    certain = {name: values for name, values in certain.items() if values}
    places = [
        place
        for place, one in enumerate(right or ())
        if one is not None and all(values[place] is not None for values in certain.values())
    ]
    if not certain or not places:
        return None
    truly = [right[place] for place in places]
    known = {name: [values[place] for place in places] for name, values in certain.items()}
    errors = {name: calibration_error(values, truly) for name, values in known.items()}
    return {"errors": errors, "n": len(truly), "chart": draw_calibration(known, truly)}
