"""Scores predicted answers or captions, and swaps images to show whether a model looks at them."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from blip2vqa.data.answers import QUESTION_TYPES
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.metric import Metric, Needs, Result, Row
from blip2vqa.evaluation.metrics import metrics_of

if TYPE_CHECKING:
    from blip2vqa.evaluation.bertscore import BERTScore

FIRST_KEYS = ("accuracy", "cider", "bleu4", "n", "n_without_answer", "empty_predictions")
"""The order of metrics.json since its first version; the other metrics follow."""


def swap_images(examples: Sequence[Example], seed: int) -> list[Example] | None:
    """Give each row the image of another row that differs from its own in content.

    All rows of one image get the same other image, every image is used once, and none keeps its own: the distinct
    contents are put in one circle, drawn by `seed`, and each row takes the next. The draw does not depend on the order
    of the rows. Returns None when there are fewer than two distinct images, so that nothing can be swapped.
    """
    owner = {}
    for example in examples:
        owner.setdefault(example.digest, example)
    if len(owner) < 2:
        return None
    circle = sorted(owner)
    random.Random(seed).shuffle(circle)
    following = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    others = [owner[following[example.digest]] for example in examples]
    return [
        replace(example, image=other.image, image_name=other.image_name, digest=other.digest)
        for example, other in zip(examples, others, strict=True)
    ]


def score(
    examples: Sequence[Example],
    predictions: Sequence[str],
    *,
    bertscore: "BERTScore | None" = None,
    task: str = "vqa",
) -> dict:
    """Score one prediction an example by all metrics of the task; of captions, give one example an image, as
    `group_by_image` makes them.

    Returns, each over all rows together and rounded nowhere:
        the value of each metric, and what stands beside it, by its name: see `blip2vqa/evaluation/metrics/`. It is None
            when no row can be scored; one that needs several annotators is left out when no row has them, and one that
            needs an encoder when `bertscore` is None.
        n, n_without_answer, empty_predictions: rows scored, rows left out, empty predictions among those scored
        by_question_type (questions alone): {type: {accuracy, n and, where there are several annotators, vqa_accuracy}}

    Raises ValueError when there are not as many predictions as examples.
    """
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples; there must be one for each")
    rows = rows_to_score(examples, predictions, task)
    result = {
        "n": len(rows),
        "n_without_answer": len(examples) - len(rows),
        "empty_predictions": sum(row.is_empty for row in rows),
    }
    by_type: dict[str, dict] = {}
    # Those that need an encoder last, as in metrics.json since its first version.
    for metric in sorted(metrics_of(task), key=lambda metric: metric.needs is Needs.ENCODER):
        scored = metric.rows_of(rows)
        if (metric.needs is Needs.ANNOTATORS and not scored) or (metric.needs is Needs.ENCODER and bertscore is None):
            continue
        found = metric.compute(scored, bertscore) if metric.needs is Needs.ENCODER else metric.compute(scored)
        result |= {metric.name: found.value, **found.details}
        if metric.by_question_type:
            _add_by_type(by_type, metric, scored, found)
    if task == "vqa":
        # The known types in their own order, then those of the user's column by the alphabet.
        names = dict.fromkeys((*QUESTION_TYPES, *sorted(by_type)))
        result["by_question_type"] = {name: by_type[name] for name in names if name in by_type}
    return {key: result[key] for key in FIRST_KEYS if key in result} | result


def rows_to_score(examples: Sequence[Example], predictions: Sequence[str], task: str = "vqa") -> list[Row]:
    """Pair predictions with what they are compared with, and leave out examples that have nothing to compare with."""
    rows = []
    for example, text in zip(examples, predictions, strict=True):
        if task == "caption":
            references = tuple(caption for caption in example.answers if caption.strip())
        else:
            references = (example.answer,) if example.answer else ()
        if references:
            rows.append(Row(text, references, example))
    return rows


def _add_by_type(by_type: dict[str, dict], metric: Metric, rows: Sequence[Row], found: Result) -> None:
    """Add a metric's mean over each question type; the first metric, which is computed on every row, adds `n`."""
    scores = defaultdict(list)
    for row, value in zip(rows, found.scores, strict=True):
        scores[row.example.question_type].append(value)
    for name, values in scores.items():
        entry = by_type.setdefault(name, {})
        entry[metric.name] = sum(values) / len(values)
        entry.setdefault("n", len(values))
