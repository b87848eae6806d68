"""Scores of predicted answers, and the two comparisons that show whether the image was looked at: blind and swapped."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from blip2vqa.data.answers import QUESTION_TYPES, normalize_answer
from blip2vqa.data.examples import Example
from blip2vqa.evaluation.metrics import BERTScore, ExactMatch, VQAAccuracy


class BlindBaseline:
    """Answers without the image: what a question alone gives away.

    The most common training answer to the same question; for a question never seen, to its first three words; else
    overall. Questions are compared in lower case without punctuation, answers after the official normalisation; the
    answer given is its most common spelling. Ties go to what came first in training.

    Raises ValueError when no training example has an answer.
    """

    def __init__(self, train: Sequence[Example]):
        spellings: dict[str, Counter] = defaultdict(Counter)
        counts: list[dict[tuple, Counter]] = [defaultdict(Counter) for _ in _question_keys("")]
        for example in train:
            if not example.answer:
                continue
            answer = normalize_answer(example.answer)
            spellings[answer][example.answer] += 1
            for level, key in zip(counts, _question_keys(example.question), strict=True):
                level[key][answer] += 1
        if not spellings:
            raise ValueError("the blind baseline needs at least one training example with an answer")
        # From the whole question to nothing at all: the first level that knows the key answers.
        self._answers = [
            {key: _most_common(spellings[_most_common(answers)]) for key, answers in level.items()} for level in counts
        ]

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """One answer an example, in order."""
        return [self._predict_one(example.question) for example in examples]

    def _predict_one(self, question: str) -> str:
        levels = zip(self._answers, _question_keys(question), strict=True)
        return next(answers[key] for answers, key in levels if key in answers)


def _question_keys(question: str) -> tuple[tuple, tuple, tuple]:
    words = tuple(re.findall(r"[\w']+", question.lower()))
    return words, words[:3], ()


def _most_common(counter: Counter) -> str:
    return counter.most_common(1)[0][0]


def swap_images(examples: Sequence[Example], seed: int) -> list[Example] | None:
    """The same rows, each with the image of another row that differs from its own in content.

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


def score(examples: Sequence[Example], predictions: Sequence[str], *, bertscore: BERTScore | None = None) -> dict:
    """Score one prediction an example against its answers.

    Returns, each between 0 and 1 (BERTScore may fall below 0 when rescaled) and rounded nowhere:
        accuracy: exact match with `example.answer` after the official normalisation; None when no row has an answer
        n, n_without_answer, empty_predictions: rows scored, rows left out, empty predictions among those scored
        vqa_accuracy, n_several_answers: over the rows with several annotators; left out when there are none
        bertscore_f1, bertscore_precision, bertscore_recall, bertscore_scorer: against `example.answer`, if asked for
        by_question_type: {type: {accuracy, n and, as above, vqa_accuracy}}

    Raises ValueError when there are not as many predictions as examples.
    """
    if len(examples) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples; there must be one for each")
    rows = [(example, text) for example, text in zip(examples, predictions, strict=True) if example.answer]
    several = [(example, text) for example, text in rows if len(example.answers) > 1]
    texts, references = [text for _, text in rows], [example.answer for example, _ in rows]
    exact = ExactMatch().compute(predictions=texts, references=references)
    result = {
        "accuracy": exact["accuracy"],
        "n": len(rows),
        "n_without_answer": len(examples) - len(rows),
        "empty_predictions": exact["empty_predictions"],
    }
    if several:
        vqa = VQAAccuracy().compute(
            predictions=[text for _, text in several], references=[list(example.answers) for example, _ in several]
        )
        result |= {"vqa_accuracy": vqa["vqa_accuracy"], "n_several_answers": len(several)}
    if bertscore is not None:
        bert = bertscore.compute(predictions=texts, references=references)
        result |= {f"bertscore_{key}": bert[key] for key in ("f1", "precision", "recall", "scorer")}

    by_type = _means_by_type([example for example, _ in rows], exact["scores"])
    vqa_by_type = _means_by_type([example for example, _ in several], vqa["scores"]) if several else {}
    result["by_question_type"] = {
        name: {"accuracy": mean, "n": n} | ({"vqa_accuracy": vqa_by_type[name][0]} if name in vqa_by_type else {})
        for name, (mean, n) in by_type.items()
    }
    return result


def _means_by_type(examples: list[Example], scores: list[float]) -> dict[str, tuple[float, int]]:
    """Mean and number of rows by question type: the known types in their own order, then those of the user's column."""
    groups = defaultdict(list)
    for example, value in zip(examples, scores, strict=True):
        groups[example.question_type].append(value)
    order = [name for name in QUESTION_TYPES if name in groups] + sorted(groups.keys() - set(QUESTION_TYPES))
    return {name: (sum(groups[name]) / len(groups[name]), len(groups[name])) for name in order}
