"""Drop questions whose answers are guessed without the picture, until a classifier of the text scores little enough.

What gives a question away is that one answer is likelier than the others, so answers are levelled: of the rows guessed
right the surest go first, and only until their answer is no likelier than the next best. To drop them all would teach the
opposite ("what the text suggests is wrong"), which another classifier learns as easily. Questions of two answers cannot be
levelled below a half; where nothing is left to level, the type of question that is guessed most loses rows, right or wrong.
Each round learns anew, with other folds.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from blip2vqa.evaluation.question_only import Guesses, blind_guesses, blind_score, right
from blip2vqa.generate.filter.balance import take_evenly
from blip2vqa.generate.rows import Question

FILTER = "blind"
MARGIN = 0.01  # below what is allowed, for classifiers a little stronger than this one
STEP = 0.5  # of what is too much goes in one round: what is left is guessed otherwise than before
MOST_ROUNDS = 60
LARGE = 20_000  # rows from which on a round takes long: fewer, larger ones, which drop some 1 % more
LARGE_STEP, MOST_LARGE_ROUNDS = 0.9, 20
FEWEST = 20  # rows of a question type, for its score or its most common answer to say anything of it
BINS = 20  # rows whose answers are about as sure lose the same share


@dataclass(frozen=True)
class Thinned:
    """What is left of the questions; both lists are in the order given, with their verdicts."""

    kept: list[Question]
    dropped: list[tuple[Question, str]]
    """With the reason."""
    after: float | None
    """Share still guessed, as `blind_score` with the same seed has it: above `max_accuracy` where that could not be reached,
    None where nothing can be held out."""


def thin(questions: Sequence[Question], max_accuracy: float, seed: int, groups: Sequence[str]) -> Thinned:
    """Drop questions until at most `max_accuracy` (0 to 1) of the answers are guessed from the questions' text.

    `groups`, one a question, are held out whole. Pictures lose questions evenly. Where anything is dropped, of each type at
    least as many count as guessed as have its most common answer: a classifier that does worse is only led astray by what was
    dropped. The result does not depend on the order of the questions.
    """
    left = sorted(range(len(questions)), key=lambda place: _key(questions[place], groups[place], seed))
    after = _score(questions, groups, left, seed)
    reasons: dict[int, str] = {}
    goal = max(max_accuracy - MARGIN, 0)
    aim = max(goal - MARGIN, 0)
    rounds = MOST_ROUNDS if len(questions) <= LARGE else MOST_LARGE_ROUNDS
    for number in range(0 if after is None or after <= max_accuracy else rounds):
        look = _look([questions[place] for place in left], [groups[place] for place in left], seed + number)
        if max(after, look.score) <= goal:
            break
        found = (
            _level(look, aim, least=0.5)
            or _lower_share(look, aim)
            or _level(look, aim, least=0.02)
            or (_give_up(look, max_accuracy) if max(after, look.score) > max_accuracy else {})
        )
        if not found:
            break
        reasons |= {left[row]: reason for row, reason in found.items()}
        left = [place for row, place in enumerate(left) if row not in found]
        after = _score(questions, groups, left, seed)
    kept = [_judged(question, "kept") for place, question in enumerate(questions) if place not in reasons]
    dropped = [(_judged(questions[place], reasons[place]), reasons[place]) for place in sorted(reasons)]
    return Thinned(kept, dropped, after)


@dataclass(frozen=True)
class _Look:
    """How the rows that are left are guessed."""

    questions: list[Question]
    guesses: Guesses
    right: np.ndarray
    """(rows,), boolean."""
    rows_of: dict[str, np.ndarray]
    """By question type, in the order of their names."""
    scores: dict[str, float]
    """By question type: share guessed, at least that of its most common answer where it has `FEWEST` rows."""
    level: frozenset[str]
    """Question types whose answers are guessed no better than by drawing from them: what is right is luck."""

    @property
    def step(self) -> float:
        """Share of what is too much that goes in this round."""
        return STEP if len(self.questions) <= LARGE else LARGE_STEP

    @property
    def pictures(self) -> list[str]:
        """By row."""
        return [question.item.image_name for question in self.questions]

    @property
    def score(self) -> float:
        """Over all rows."""
        return sum(score * len(self.rows_of[kind]) for kind, score in self.scores.items()) / len(self.questions)

    @property
    def judged(self) -> dict[str, float]:
        """The scores of question types with enough rows for one."""
        return {kind: score for kind, score in self.scores.items() if len(self.rows_of[kind]) >= FEWEST}


def _look(questions: list[Question], groups: list[str], seed: int) -> _Look:
    answers = [question.answer for question in questions]
    guesses = blind_guesses([question.question for question in questions], answers, groups, seed=seed)
    found = right(guesses.answers, answers)
    kinds = np.array([question.question_type for question in questions], dtype=object)
    rows_of = {kind: np.flatnonzero(kinds == kind) for kind in sorted(set(kinds))}
    scores, level = {}, set()
    for kind, rows in rows_of.items():
        shares = np.array(list(Counter(answers[row] for row in rows).values())) / len(rows)
        guessed = found[rows].mean()
        scores[kind] = float(max(guessed, shares.max() if len(rows) >= FEWEST else 0))
        if guessed <= (shares**2).sum() + MARGIN:
            level.add(kind)
    return _Look(questions, guesses, found, rows_of, scores, frozenset(level))


def _level(look: _Look, aim: float, least: float) -> dict[int, str]:
    """Rows to drop, with why, so that answers are more even; none where that gives less than `least` of what is wanted."""
    wanted = math.ceil(look.step * (look.score - aim) * len(look.questions) / (1 - aim))
    sure, second = np.maximum(look.guesses.confidence, 1e-9), look.guesses.runner_up
    # Without this share of its rows, the answer that is guessed is as rare as the next best.
    most = np.where(look.right, look.step * (1 - second / sure), 0)
    for kind in look.level:
        most[look.rows_of[kind]] = 0
    if most.sum() < max(least * wanted, 1):
        return {}
    low, high = 0.0, 1.0
    for _ in range(30):  # the confidence to come down to, so that as many go as are wanted, by bisection
        middle = (low + high) / 2
        share = np.minimum(most, np.maximum(sure - middle, 0) / (sure * (1 - middle)))
        low, high = (middle, high) if share.sum() > wanted else (low, middle)
    alike = defaultdict(list)
    for row in np.flatnonzero(share > 0):
        alike[-int(share[row] * BINS), look.questions[row].question_type, look.guesses.answers[row]].append(int(row))
    pictures, dropped, owed = look.pictures, {}, 0.0
    left = Counter(pictures)
    for key in sorted(alike):
        owed += share[alike[key]].sum()
        for row in take_evenly(alike[key], int(owed), pictures, left):
            dropped[row] = f"guessed without the picture (confidence {look.guesses.confidence[row]:.2f})"
        owed -= int(owed)
    return dropped


def _lower_share(look: _Look, aim: float) -> dict[int, str]:
    """Rows to drop, with why, of the type that is guessed most; none where the other types do not make up for it."""
    if not look.judged:
        return {}
    worst = max(look.judged, key=look.scores.__getitem__)
    rows, score = look.rows_of[worst].tolist(), look.scores[worst]
    others = len(look.questions) - len(rows)
    if not others or (look.score * len(look.questions) - score * len(rows)) / others >= aim:
        return {}
    wanted = math.ceil(look.step * (look.score - aim) * len(look.questions) / (score - aim))
    reason = f"questions of type {worst} are guessed without the picture too often ({score:.2f})"
    return dict.fromkeys(take_evenly(rows, wanted, look.pictures, Counter(look.pictures)), reason)


def _give_up(look: _Look, max_accuracy: float) -> dict[int, str]:
    """All rows of the type that is guessed most, with why, where nothing else helps; none where no type is below the limit."""
    if min(look.judged.values(), default=1) > max_accuracy:
        return {}
    worst = max(look.judged, key=look.scores.__getitem__)
    reason = f"questions of type {worst} are guessed without the picture ({look.scores[worst]:.2f})"
    return dict.fromkeys(look.rows_of[worst].tolist(), reason) if look.scores[worst] > look.score + 1e-9 else {}


def _score(questions: Sequence[Question], groups: Sequence[str], left: list[int], seed: int) -> float | None:
    asked, answers = [questions[place].question for place in left], [questions[place].answer for place in left]
    return blind_score(asked, answers, [groups[place] for place in left], seed=seed).score


def _key(question: Question, group: str, seed: int) -> bytes:
    """Puts questions in an order of their own, drawn by the seed."""
    parts = (str(seed), group, question.item.image_name, question.question, question.answer, question.source)
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _judged(question: Question, verdict: str) -> Question:
    return replace(question, verdicts=question.verdicts | {FILTER: verdict})
