"""Compares several systems' answers to the same questions: scores with intervals, differences, and agreement."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from blip2vqa.data.answers import normalize_answer
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.blind import BlindBaseline
from blip2vqa.evaluation.metric import Metric, Needs
from blip2vqa.evaluation.metrics import metrics_of
from blip2vqa.evaluation.scores import rows_to_score, score
from blip2vqa.evaluation.verdict import BLIND

if TYPE_CHECKING:
    from blip2vqa.evaluation.bertscore import BERTScore

FOLDS = 5
CONFIDENCE = 0.95
FEW_IMAGES = 30  # below about so many clusters, intervals are too narrow (Cameron, Gelbach & Miller 2008)
CHUNK = 1 << 21  # numbers drawn at once: 16 MiB


@dataclass
class SystemRun:
    """Holds what one system answered, and what it is."""

    name: str
    answers: list[str]
    """One an example, in order; empty where it said nothing."""
    base_model_id: str
    adapter: str | None
    quantization: str
    prompt: str
    seconds_per_question: float | None = None
    peak_memory: int | None = None
    """In bytes."""
    parameters: int | None = None
    """Of the whole model, with its adapter."""
    trained_parameters: int | None = None
    """Of the adapter."""
    confidences: list[float | None] = field(default_factory=list)
    """Of the answers, where they are known."""


def compare(
    examples: Sequence[Example],
    runs: Sequence[SystemRun],
    *,
    bertscore: "BERTScore | None" = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> dict:
    """Score the systems, and a blind one beside them, on the same questions.

    Questions about one image are not independent, so images are resampled, each with all its questions (the cluster
    bootstrap: Field & Welsh 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x; for evaluations of language models,
    Miller 2024, https://arxiv.org/abs/2411.00640). Every resample is the same for all systems, so that a difference is
    one of pairs (Koehn 2004, https://aclanthology.org/W04-3250). Intervals are the percentiles at 95%.

    A bootstrap of a handful of images is too sure of itself, so a difference must also pass a randomisation test:
    `p_value` is the share of draws in which as large a difference comes up when the two systems change places on
    random images, both signs counted, and the observed one too (Phipson & Smyth 2010,
    https://arxiv.org/abs/1603.05766). Fewer than six images never pass it. Pairs are judged each on its own.

    Returns, ready for JSON:
        systems: one a system in the order given, last `BLIND` where it can be had: the fields of `SystemRun` but answers
            and confidences (all None for `BLIND`), all that `evaluation.scores.score` returns, and an interval [low, high]
            of each metric under its `interval_key`: `interval` is that of the accuracy. `empty_predictions` counts
            those of rows without answer too. Intervals are None without two images that have answers, accuracies without any.
        differences: {a, b, difference, interval, p_value, more_than_noise} a pair, `difference` the accuracy of a less
            that of b; the last four are None where there are no intervals, `more_than_noise` False.
        agreement: {a: {b: share of questions with the same answer after normalisation}}, None for no questions.
        disagreements: {row, image_name, question, answer, said: {name: answer}} where the systems, `BLIND` aside, do
            not all give the same answer after normalisation.
        n, images: questions, and distinct images that have answers; resamples, seed; notes: sentences on what is
            missing, and on what the figures do not bear.

    Raises ValueError when there are not as many answers as examples, or two systems have one name.
    """
    names = [run.name for run in runs]
    if len({BLIND, *names}) <= len(names):
        raise ValueError(f"systems need names of their own, and not {BLIND!r}: {names}")
    for run in runs:
        if len(run.answers) != len(examples):
            raise ValueError(f"{run.name}: {len(run.answers)} answers for {len(examples)} examples")
    rows = [asdict(run) for run in runs]
    answers = {row["name"]: row.pop("answers") for row in rows}
    for row in rows:
        del row["confidences"]
    blind = blind_answers(examples, seed=seed)
    if blind is not None:
        rows.append(dict.fromkeys(rows[0] if rows else ("name",)) | {"name": BLIND})
        answers[BLIND] = blind

    clusters = len({example.image_key for example in examples if example.answer})
    metrics = [metric for metric in metrics_of("vqa") if metric.needs is not Needs.ENCODER]
    sums = {metric: _image_sums(examples, answers, metric) for metric in metrics}
    # The same draws for each metric, so that a new one changes nothing of the others.
    means = {metric: _resample(*of, resamples, np.random.default_rng(seed)) for metric, of in sums.items()}
    main = metrics[0]
    for place, row in enumerate(rows):
        said = answers[row["name"]]
        row |= score(examples, said, bertscore=bertscore)
        row["empty_predictions"] = sum(not text.strip() for text in said)
        row |= {metric.interval_key: _interval(means[metric], place) for metric in metrics if metric.name in row}

    normalized = {name: [normalize_answer(text) for text in said] for name, said in answers.items()}
    return {
        "systems": rows,
        "differences": _differences(rows, main, means[main], sums[main][0], resamples, np.random.default_rng(seed)),
        "agreement": {a: {b: _share_equal(normalized[a], normalized[b]) for b in answers} for a in answers},
        "disagreements": [
            {"row": example.row, "image_name": example.image_name, "question": example.question,
             "answer": example.answer, "said": {name: answers[name][place] for name in names}}
            for place, example in enumerate(examples)
            if len({normalized[name][place] for name in names}) > 1
        ],
        "n": len(examples),
        "images": clusters,
        "resamples": resamples,
        "seed": seed,
        "notes": _notes(rows, clusters, blind is not None),
    }  # fmt: skip


def blind_answers(examples: Sequence[Example], seed: int = 0) -> list[str] | None:
    """Answer each example by a `BlindBaseline` that knows the other images' questions and answers.

    The images are dealt out to `FOLDS` by their content, drawn by `seed` and whatever the order of the rows, those with
    answers evenly; each fold is answered from all the others. With fewer images than folds each is a fold of its own.
    On few images this is harder than with a training table: an answer left out is rarer among the rest.
    Returns None when fewer than two images have answers.
    """
    answered = {example.image_key for example in examples if example.answer}
    if len(answered) < 2:
        return None
    order = sorted({example.image_key for example in examples})
    random.Random(seed).shuffle(order)
    order.sort(key=lambda image: image not in answered)
    fold_of = {image: place % FOLDS for place, image in enumerate(order)}
    # Sorted, since the baseline breaks ties by what comes first.
    known = sorted(examples, key=lambda example: (example.image_key, example.question, example.answers))
    said = [""] * len(examples)
    for fold in set(fold_of.values()):
        baseline = BlindBaseline([example for example in known if fold_of[example.image_key] != fold])
        places = [place for place, example in enumerate(examples) if fold_of[example.image_key] == fold]
        for place, answer in zip(places, baseline.predict([examples[place] for place in places]), strict=True):
            said[place] = answer
    return said


def _image_sums(
    examples: Sequence[Example], answers: dict[str, list[str]], metric: Metric
) -> tuple[np.ndarray, np.ndarray]:
    """Sum a metric's scores over each image (images × systems), and count its rows (images)."""
    by_system = [metric.rows_of(rows_to_score(examples, said)) for said in answers.values()]
    rows = by_system[0] if by_system else []
    # Sorted, so that the resamples do not depend on the order of the rows.
    images = {image: number for number, image in enumerate(sorted({row.example.image_key for row in rows}))}
    numbers = np.array([images[row.example.image_key] for row in rows], dtype=np.intp)
    sums = [np.bincount(numbers, metric.compute(said).scores, len(images)) for said in by_system if rows]
    counts = np.bincount(numbers, minlength=len(images))
    return np.array(sums).reshape(len(sums), len(images)).T, counts


def _resample(sums: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray | None:
    """Compute the mean scores (resamples × systems) of images drawn with replacement; None for fewer than two images."""
    images = len(counts)
    if images < 2:
        return None
    columns, means = np.column_stack([sums, counts]), []
    for size in _chunks(resamples, images):
        drawn = rng.integers(images, size=(size, images)) + images * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        totals = times.astype(float) @ columns
        means.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(means)


def _chunks(draws: int, images: int) -> Iterator[int]:
    size = max(1, CHUNK // images)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _interval(values: np.ndarray | None, column: int) -> list[float] | None:
    bounds = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    return None if values is None else np.quantile(values[:, column], bounds).tolist()


def _differences(
    rows: list[dict],
    metric: Metric,
    means: np.ndarray | None,
    sums: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
) -> list[dict]:
    pairs = list(combinations(range(len(rows)), 2))
    p_values = [None] * len(pairs)
    if means is not None and pairs:
        first, second = np.array(pairs).T
        p_values = _randomisation(sums[:, first] - sums[:, second], resamples, rng).tolist()
    result = []
    for (a, b), p_value in zip(pairs, p_values, strict=True):
        first, second = rows[a][metric.name], rows[b][metric.name]
        difference = None if first is None else first - second
        interval, clear = None, False
        if p_value is not None:
            low, high = interval = _interval(means[:, [a]] - means[:, [b]], 0)
            clear = (low > 0 or high < 0) and p_value < 1 - CONFIDENCE
        result.append(
            {"a": rows[a]["name"], "b": rows[b]["name"], "difference": difference, "interval": interval,
             "p_value": p_value, "more_than_noise": clear}
        )  # fmt: skip
    return result


def _randomisation(differences: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Compute two-sided p-values (pairs) of sums of differences (images × pairs) under random signs of the images."""
    observed, as_large = np.abs(differences.sum(0)), np.ones(differences.shape[1])
    for size in _chunks(draws, len(differences)):
        signs = rng.integers(2, size=(size, len(differences)), dtype=np.int8) * 2.0 - 1
        as_large += (np.abs(signs @ differences) >= observed).sum(0)  # sums of whole numbers: no rounding
    return as_large / (draws + 1)


def _share_equal(first: list[str], second: list[str]) -> float | None:
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first) if first else None


def _notes(rows: list[dict], images: int, has_blind: bool) -> list[str]:
    """Write sentences on what is missing, and on figures that are less certain than they look."""
    if not images:
        return ["The table has no answers: there is no accuracy, only agreement."]
    notes = []
    if has_blind:
        notes.append(
            f"{BLIND} is the most common answer to the same question among the other images of this table; it is not the blind "
            "baseline of training."
        )
    if images == 1:
        notes.append(
            "All answers are about one image: there are no intervals, and differences cannot be told from noise."
        )
    elif images < FEW_IMAGES:
        few = ", and no difference between systems can be more than noise" if images < 6 else ""
        notes.append(f"From {images} images, fewer than {FEW_IMAGES}, intervals come out too narrow{few}.")
    if not has_blind:
        notes.append("There is no blind baseline, which learns from the other images' answers.")
    flat = [row["name"] for row in rows if row["interval"] and row["interval"][0] == row["interval"][1]]
    if flat:
        notes.append(
            f"An interval without width means that all images score alike, not that the score is certain: {', '.join(flat)}."
        )
    pairs = len(rows) * (len(rows) - 1) // 2
    if pairs > 5 and images > 5:
        notes.append(
            f"Each of the {pairs} pairs is judged on its own: of those that do not differ, 1 in 20 will seem to."
        )
    return notes
