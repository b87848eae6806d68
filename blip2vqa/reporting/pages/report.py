"""Writes `report.html`: what systems answered to questions about pictures, for a person to look through."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from blip2vqa.data.examples import Example
from blip2vqa.evaluation.calibration import calibration_error
from blip2vqa.evaluation.metrics import MAIN_METRICS, accuracy, metrics_shown
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
LONGEST = 300
"""Characters shown of one text."""
THUMBNAIL, QUALITY = 192, 75
SURE = 0.8
"""From this probability on, an answer counts as a sure one."""
KINDS = {
    "r": "right",
    "w": "wrong",
    "p": "right only because of the picture",
    "s": "sure and wrong: perhaps the table is",
    "b": "changed for the better",
    "c": "changed for the worse",
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
    history: Sequence[dict] = ()
    """What was logged while it was trained."""
    notes: Sequence[str] = field(default_factory=list)


def write_report(path: str | Path, report: Report, open_picture: Callable[[Example], Image.Image | None]) -> None:
    """Write the page, whole or not at all; pictures stand in it as thumbnails, as many as `MOST_BYTES` have room for.

    `open_picture` returns the picture of an example, None where it cannot be shown. Raises OSError when the folder cannot be
    written to.
    """
    write_text_atomic(path, _render(report, open_picture))


def _render(report: Report, open_picture: Callable[[Example], Image.Image | None]) -> str:
    judged = {name: _right(report, name) for name in report.answers}
    right, sure = judged[report.judged], list(report.probabilities or report.confidences)
    kinds = _kinds(report, judged, sure)
    types = sorted({example.question_type for example in report.examples})
    order = _vary(report.examples, kinds)[:MOST_ROWS]
    rows = [
        {
            "place": place,
            "example": report.examples[place],
            "answers": [shown(said[place], LONGEST) for said in report.answers.values()],
            "marks": [None if one is None else one[place] for one in judged.values()],
            "kinds": kinds[place],
            "type": types.index(report.examples[place].question_type),
            "sure": sure[place] if sure else None,
        }
        for place in order
    ]
    values = {
        "report": report, "title": report.title, "rows": rows, "types": types, "longest": LONGEST,
        "scores": _score_table(report.systems), "by_type": _type_table(report.systems),
        "kinds": {name: (text, sum(name in one for one in kinds)) for name, text in KINDS.items()},
        "confusions": _confusions(report, right), "training": draw_training(report.history), "history": report.history,
        "calibration": _calibration(report, right), "certainty": "probability" if report.probabilities else "confidence",
        "all": len(report.examples),
    }  # fmt: skip
    template = "reporting/pages/report.html"
    while True:
        bytes_of_text = len(render_page(template, **values, pictures=[], number_of={}).encode())
        if bytes_of_text <= MOST_BYTES or not rows:
            break
        del rows[len(rows) * MOST_BYTES // bytes_of_text - 1 :]
    room = MOST_BYTES - bytes_of_text
    pictures = _pictures([row["example"] for row in rows], open_picture, room)
    number_of = {image: number for number, image in enumerate(pictures, start=1)}
    return render_page(template, **values, pictures=list(pictures.values()), number_of=number_of)


def _right(report: Report, name: str) -> list[bool] | None:
    """Say of each answer of a system whether it is right; None where no row can be, as with captions."""
    if any(row.get("cider") is not None for row in report.systems):
        return None
    scored = {id(row.example): row for row in rows_to_score(report.examples, report.answers[name])}
    if not scored:
        return None
    judged = accuracy.compute(list(scored.values())).scores
    known = dict(zip(scored, judged, strict=True))
    return [bool(known.get(id(example))) for example in report.examples]


def _kinds(report: Report, judged: dict[str, list[bool] | None], sure: Sequence[float | None]) -> list[str]:
    """Collect the letters of each row's `KINDS`."""
    right, before, swapped = (judged.get(name) for name in (report.judged, report.before, report.swapped))
    if right is None:
        return [""] * len(report.examples)
    found = []
    for place, is_right in enumerate(right):
        among = {
            "r": is_right,
            "w": not is_right,
            "p": is_right and swapped and not swapped[place],
            "s": not is_right and sure and (sure[place] or 0) >= SURE,
            "b": is_right and before and not before[place],
            "c": not is_right and before and before[place],
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
) -> dict[str, str]:
    """Make thumbnails of the first pictures that there is room for, `{image: data address}`."""
    found: dict[str, str] = {}
    tried = set()
    for example in examples:
        if example.image_key in tried:
            continue
        tried.add(example.image_key)
        image = open_picture(example)
        if image is None:
            continue
        data = data_address(shrink(image, THUMBNAIL), QUALITY)
        room -= len(data) + 80  # with the rule that shows it
        if room < 0:
            break
        found[example.image_key] = data
    return found


def _score_table(systems: Sequence[dict]) -> dict:
    metrics = metrics_shown(systems)

    def cell(row: dict, metric) -> str:
        bounds = row.get(metric.interval_key) if metric.name in MAIN_METRICS else None
        interval = " ({:.1f}–{:.1f})".format(*(100 * bound for bound in bounds)) if bounds else ""
        return metric.show(row.get(metric.name)) + interval

    rows = [(row["name"], [cell(row, metric) for metric in metrics], row.get("n")) for row in systems]
    return {"heads": [metric.title for metric in metrics], "rows": rows}


def _type_table(systems: Sequence[dict]) -> list[tuple[str, int, list[str]]]:
    """List (type, questions, accuracies of the systems)."""
    known = [row for row in systems if "by_question_type" in row]
    return [(kind, n, [percent(accuracy_of(row, kind)) for row in known]) for kind, n in types_of(known).items()]


def _confusions(report: Report, right: list[bool] | None) -> list[tuple[str, str, int]]:
    """Count the wrong answers most often given: (truth, answer, rows)."""
    if right is None:
        return []
    said = report.answers[report.judged]
    wrong = Counter(
        (example.answer, said[place])
        for place, example in enumerate(report.examples)
        if example.answer and not right[place]
    )
    return [(truth, answer, n) for (truth, answer), n in wrong.most_common(MOST_CONFUSIONS)]


def _calibration(report: Report, right: list[bool] | None) -> dict | None:
    """Say how far confidence, and probability, are off, with the chart; None where neither is known."""
    certain = {"confidence": report.confidences, "probability": report.probabilities}
    places = [place for place, example in enumerate(report.examples) if example.answer]
    known = {
        name: [values[place] for place in places]
        for name, values in certain.items()
        if values and right and all(values[place] is not None for place in places)
    }
    if not known or not places:
        return None
    truly = [right[place] for place in places]
    errors = {name: calibration_error(values, truly) for name, values in known.items()}
    return {"errors": errors, "n": len(truly), "chart": draw_calibration(known, truly)}
