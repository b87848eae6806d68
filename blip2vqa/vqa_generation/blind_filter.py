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

from blip2vqa.blind import Guesses, blind_guesses, blind_score, right
from blip2vqa.vqa_generation.rows import Question

FILTER = "blind"
MARGIN = 0.01  # below what is allowed, for classifiers a little stronger than this one
STEP = 0.5  # of what is too much goes in one round: what is left is guessed otherwise than before
MOST_ROUNDS = 60
BINS = 20  # rows whose answers are about as sure lose the same share


@dataclass(frozen=True)
class Thinned:
    """What is left of the questions; both lists are in the order given, with their verdicts."""

    kept: list[Question]
    dropped: list[tuple[Question, str]]
    """With the reason."""
    before: float | None
    """Share guessed, as `blind_score` with the same seed has it; None where nothing can be held out."""
    after: float | None
    """Above `max_accuracy` where that could not be reached."""
    rounds: int


def thin(questions: Sequence[Question], max_accuracy: float, seed: int, groups: Sequence[str] | None = None) -> Thinned:
    """Drop questions until at most `max_accuracy` (0 to 1) of the answers are guessed from the questions' text.

    `groups`, one a question, are held out whole; by default, all that is asked about a product. Pictures lose questions
    evenly. Of each type at least as many count as guessed as have its most common answer: a classifier that does worse is
    only led astray by what was dropped. The result does not depend on the order of the questions.
    """
    groups = [question.item.item_id for question in questions] if groups is None else list(groups)
    left = sorted(range(len(questions)), key=lambda place: _key(questions[place], groups[place], seed))
    before = after = _score(questions, groups, left, seed)
    reasons: dict[int, str] = {}
    rounds, goal = 0, max_accuracy
    while after is not None and rounds < MOST_ROUNDS:
        look = _look([questions[place] for place in left], [groups[place] for place in left], seed + rounds)
        if max(after, look.score) <= goal:
            break
        goal = max(max_accuracy - MARGIN, 0)
        aim = max(goal - MARGIN, 0)
        found = (
            _level(look, aim, least=0.5) or _lower_share(look, aim) or _level(look, aim, least=0.02) or _give_up(look)
        )
        if not found:
            break
        reasons |= {left[row]: reason for row, reason in found.items()}
        left = [place for row, place in enumerate(left) if row not in found]
        after = _score(questions, groups, left, seed)
        rounds += 1
    kept = [_judged(question, "kept") for place, question in enumerate(questions) if place not in reasons]
    dropped = [(_judged(questions[place], reasons[place]), reasons[place]) for place in sorted(reasons)]
    return Thinned(kept, dropped, before, after, rounds)


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
    """By question type: share guessed, at least that of its most common answer."""
    level: frozenset[str]
    """Question types whose answers are guessed no better than by drawing from them: what is right is luck."""

    @property
    def score(self) -> float:
        """Over all rows."""
        return sum(score * len(self.rows_of[kind]) for kind, score in self.scores.items()) / len(self.questions)


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
        scores[kind] = float(max(guessed, shares.max()))
        if guessed <= (shares**2).sum() + MARGIN:
            level.add(kind)
    return _Look(questions, guesses, found, rows_of, scores, frozenset(level))


def _level(look: _Look, aim: float, least: float) -> dict[int, str]:
    """Rows to drop, with why, so that answers are more even; none where that gives less than `least` of what is wanted."""
    wanted = math.ceil(STEP * (look.score - aim) * len(look.questions) / (1 - aim))
    sure, second = np.maximum(look.guesses.confidence, 1e-9), look.guesses.runner_up
    # Without this share of its rows, the answer that is guessed is as rare as the next best.
    most = np.where(look.right, STEP * (1 - second / sure), 0)
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
    in_picture = Counter(question.item.image_name for question in look.questions)
    dropped, owed = {}, 0.0
    for key in sorted(alike):
        owed += share[alike[key]].sum()
        for row in _spread(look, alike[key], int(owed), in_picture):
            dropped[row] = f"guessed without the picture (confidence {look.guesses.confidence[row]:.2f})"
        owed -= int(owed)
    return dropped


def _lower_share(look: _Look, aim: float) -> dict[int, str]:
    """Rows to drop, with why, of the type that is guessed most; none where the other types do not make up for it."""
    worst = max(look.scores, key=look.scores.__getitem__)
    rows, score = look.rows_of[worst].tolist(), look.scores[worst]
    others = len(look.questions) - len(rows)
    if not others or (look.score * len(look.questions) - score * len(rows)) / others >= aim:
        return {}
    wanted = math.ceil(STEP * (look.score - aim) * len(look.questions) / (score - aim))
    in_picture = Counter(question.item.image_name for question in look.questions)
    reason = f"questions of type {worst} are guessed without the picture too often ({score:.2f})"
    return dict.fromkeys(_spread(look, rows, wanted, in_picture), reason)


def _give_up(look: _Look) -> dict[int, str]:
    """All rows of the type that is guessed most, with why, where nothing else helps; none of the last type."""
    worst = max(look.scores, key=look.scores.__getitem__)
    reason = f"questions of type {worst} are guessed without the picture ({look.scores[worst]:.2f})"
    helps = look.scores[worst] > look.score + 1e-9
    return dict.fromkeys(look.rows_of[worst].tolist(), reason) if helps else {}


def _spread(look: _Look, rows: list[int], count: int, in_picture: Counter) -> list[int]:
    """So many of the rows, each time one of the picture with the most questions left; they are taken off `in_picture`."""
    left, room = in_picture.copy(), {}
    for row in rows:
        picture = look.questions[row].item.image_name
        room[row] = left[picture]
        left[picture] -= 1
    chosen = sorted(rows, key=lambda row: -room[row])[:count]
    in_picture.subtract(look.questions[row].item.image_name for row in chosen)
    return chosen


def _score(questions: Sequence[Question], groups: Sequence[str], left: list[int], seed: int) -> float | None:
    asked, answers = [questions[place].question for place in left], [questions[place].answer for place in left]
    return blind_score(asked, answers, [groups[place] for place in left], seed=seed).score


def _key(question: Question, group: str, seed: int) -> bytes:
    """Puts questions in an order of their own, drawn by the seed."""
    parts = (str(seed), group, question.item.image_name, question.question, question.answer, question.source)
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _judged(question: Question, verdict: str) -> Question:
    return replace(question, verdicts=question.verdicts | {FILTER: verdict})
