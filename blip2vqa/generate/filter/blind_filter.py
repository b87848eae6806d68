"""Drop questions whose answers are guessed without the picture, until a classifier of their text scores little enough.

A question gives its answer away where one answer is likelier than the others, so answers are levelled: of the rows guessed
right the surest go first, and only until their answer is no likelier than the next best. To drop them all would teach the
opposite ("what the text suggests is wrong"), which another classifier learns as easily. Questions with two answers cannot be
levelled below a half; where nothing is left to level, the type of question that is guessed most loses rows, right or wrong.
Each round learns anew, with other folds.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from blip2vqa.evaluation.question_only import blind_guesses, blind_score, right
from blip2vqa.generate.filter.balance import take_evenly
from blip2vqa.generate.rows import Question

FILTER = "blind"
MARGIN = 0.01  # below what is allowed, for classifiers a little stronger than this one
STEP = 0.5  # share of what is too much that goes in one round, since what is left is guessed otherwise than before
MOST_ROUNDS = 60
LARGE = 20_000  # rows from which on a round takes long: fewer and larger ones drop some 1% more
LARGE_STEP, MOST_LARGE_ROUNDS = 0.9, 20
FEWEST = 20  # rows of a question type for its score or its most common answer to mean anything
BINS = 20  # rows whose answers are about as sure lose the same share


def thin(
    questions: Sequence[Question], max_accuracy: float, seed: int, groups: Sequence[str]
) -> tuple[dict[int, str], float | None]:
    """Choose questions to drop until at most `max_accuracy` (0 to 1) of the answers are guessed from the questions' text.

    `groups`, one a question, are held out whole. Pictures lose questions evenly. Where anything is dropped, a type counts as
    guessed at least as often as its most common answer is right: a classifier that does worse is only led astray by what was
    dropped. The result does not depend on the order of the questions.

    Returns the places of the questions to drop, each with its reason, and the `blind_score` of what is left, with the same
    seed: above the limit where that could not be reached, None where nothing can be held out.
    """
    left = sorted(range(len(questions)), key=lambda place: _key(questions[place], groups[place], seed))
    after = _score(questions, groups, left, seed)
    dropped: dict[int, str] = {}
    goal = max(max_accuracy - MARGIN, 0)
    aim = max(goal - MARGIN, 0)
    rounds = MOST_ROUNDS if len(questions) <= LARGE else MOST_LARGE_ROUNDS
    for number in range(0 if after is None or after <= max_accuracy else rounds):
        state = Guessed([questions[place] for place in left], [groups[place] for place in left], seed + number)
        if max(after, state.score) <= goal:
            break
        found = (
            _level(state, aim, least=0.5)
            or _lower_share(state, aim)
            or _level(state, aim, least=0.02)
            or (_give_up(state, max_accuracy) if max(after, state.score) > max_accuracy else {})
        )
        if not found:
            break
        dropped |= {left[row]: reason for row, reason in found.items()}
        left = [place for row, place in enumerate(left) if row not in found]
        after = _score(questions, groups, left, seed)
    return dropped, after


class Guessed:
    """How well the rows that are left are guessed from their text."""

    def __init__(self, questions: list[Question], groups: list[str], seed: int):
        answers = [question.answer for question in questions]
        self.questions = questions
        self.pictures = [question.item.image_name for question in questions]
        self.step = STEP if len(questions) <= LARGE else LARGE_STEP
        """Share of what is too much that goes in this round."""
        self.guesses = blind_guesses([question.question for question in questions], answers, groups, seed=seed)
        self.right = right(self.guesses.answers, answers)
        """(rows,), boolean."""
        kinds = np.array([question.question_type for question in questions], dtype=object)
        self.rows_of = {kind: np.flatnonzero(kinds == kind) for kind in sorted(set(kinds))}
        """Question type → its rows, in the order of the types' names."""
        self.scores: dict[str, float] = {}
        """Question type → share guessed, at least that of its most common answer where the type has `FEWEST` rows."""
        self.level: set[str] = set()
        """Question types that are guessed no better than by drawing from their answers: what is right is luck."""
        for kind, rows in self.rows_of.items():
            shares = np.array(list(Counter(answers[row] for row in rows).values())) / len(rows)
            guessed = self.right[rows].mean()
            self.scores[kind] = float(max(guessed, shares.max() if len(rows) >= FEWEST else 0))
            if guessed <= (shares**2).sum() + MARGIN:
                self.level.add(kind)
        self.score = sum(score * len(self.rows_of[kind]) for kind, score in self.scores.items()) / len(questions)
        """Share guessed of all rows."""
        self.judged = {kind: score for kind, score in self.scores.items() if len(self.rows_of[kind]) >= FEWEST}
        """The scores of question types with `FEWEST` rows."""
        self.worst = max(self.judged, key=self.judged.__getitem__, default=None)
        """The one of them that is guessed most; None where there is none."""


def _level(state: Guessed, aim: float, least: float) -> dict[int, str]:
    """Choose rows to drop so that answers are more even; none where that gives less than `least` of what is wanted."""
    wanted = math.ceil(state.step * (state.score - aim) * len(state.questions) / (1 - aim))
    sure, second = np.maximum(state.guesses.confidence, 1e-9), state.guesses.runner_up
    # Without this share of its rows, the answer that is guessed is as rare as the next best.
    most = np.where(state.right, state.step * (1 - second / sure), 0)
    for kind in state.level:
        most[state.rows_of[kind]] = 0
    if most.sum() < max(least * wanted, 1):
        return {}
    low, high = 0.0, 1.0
    for _ in range(30):  # bisect for the confidence to come down to, so that as many rows go as are wanted
        middle = (low + high) / 2
        share = np.minimum(most, np.maximum(sure - middle, 0) / (sure * (1 - middle)))
        low, high = (middle, high) if share.sum() > wanted else (low, middle)
    alike = defaultdict(list)
    for row in np.flatnonzero(share > 0):
        alike[-int(share[row] * BINS), state.questions[row].question_type, state.guesses.answers[row]].append(int(row))
    pictures, dropped, owed = state.pictures, {}, 0.0
    left = Counter(pictures)
    for key in sorted(alike):
        owed += share[alike[key]].sum()
        for row in take_evenly(alike[key], int(owed), pictures, left):
            dropped[row] = f"guessed without the picture (confidence {state.guesses.confidence[row]:.2f})"
        owed -= int(owed)
    return dropped


def _lower_share(state: Guessed, aim: float) -> dict[int, str]:
    """Choose rows to drop of the type that is guessed most; none where the other types do not make up for it."""
    worst = state.worst
    if worst is None:
        return {}
    rows, score = state.rows_of[worst].tolist(), state.scores[worst]
    others = len(state.questions) - len(rows)
    if not others or (state.score * len(state.questions) - score * len(rows)) / others >= aim:
        return {}
    wanted = math.ceil(state.step * (state.score - aim) * len(state.questions) / (score - aim))
    reason = f"questions of type {worst} are guessed without the picture too often ({score:.2f})"
    return dict.fromkeys(take_evenly(rows, wanted, state.pictures, Counter(state.pictures)), reason)


def _give_up(state: Guessed, max_accuracy: float) -> dict[int, str]:
    """Choose all rows of the type that is guessed most, where nothing else helps; none where no type is below the limit."""
    if min(state.judged.values(), default=1) > max_accuracy:
        return {}
    worst, score = state.worst, state.scores[state.worst]
    reason = f"questions of type {worst} are guessed without the picture ({score:.2f})"
    return dict.fromkeys(state.rows_of[worst].tolist(), reason) if score > state.score + 1e-9 else {}


def _score(questions: Sequence[Question], groups: Sequence[str], left: list[int], seed: int) -> float | None:
    asked, answers = [questions[place].question for place in left], [questions[place].answer for place in left]
    return blind_score(asked, answers, [groups[place] for place in left], seed=seed).score


def _key(question: Question, group: str, seed: int) -> bytes:
    """Sort key that puts questions in an order of their own, drawn by the seed."""
    parts = (str(seed), group, question.item.image_name, question.question, question.answer, question.source)
    return hashlib.sha256("\0".join(parts).encode()).digest()
