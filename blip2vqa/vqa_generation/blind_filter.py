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


def thin(
    questions: Sequence[Question], max_accuracy: float, seed: int, groups: Sequence[str] | None = None
) -> Thinned:
    """Drop questions until at most `max_accuracy` (0 to 1) of the answers are guessed from the questions' text.

    `groups`, one a question, are held out together; by default, all that is asked about a product. Pictures lose
    questions evenly. A type of question counts as guessed at least as often as its most common answer occurs: classifiers
    that do worse on levelled answers have only been led astray. The result does not depend on the order of the questions.
    """
    groups = [question.item.item_id for question in questions] if groups is None else list(groups)
    order = sorted(range(len(questions)), key=lambda place: _key(questions[place], groups[place], seed))
    rows = _Rows([questions[place] for place in order], [groups[place] for place in order])
    before = after = rows.score(seed)
    reasons: dict[int, str] = {}
    rounds, goal = 0, max_accuracy
    while after is not None and rounds < MOST_ROUNDS:
        if max(after, rows.guess(seed)) <= goal:
            break
        goal = max(max_accuracy - MARGIN, 0)
        rows.guess(seed + rounds + 1)
        found = rows.drop(max(goal - MARGIN, 0))
        if not found:
            break
        reasons |= {order[place]: reason for place, reason in found.items()}
        rounds, after = rounds + 1, rows.score(seed)
    kept = [_judged(question, "kept") for place, question in enumerate(questions) if place not in reasons]
    dropped = [(_judged(questions[place], reasons[place]), reasons[place]) for place in sorted(reasons)]
    return Thinned(kept, dropped, before, after, rounds)


class _Rows:
    """What is left, and how it is guessed."""

    def __init__(self, questions: Sequence[Question], groups: Sequence[str]):
        self.questions, self.groups = questions, groups
        self.left = list(range(len(questions)))
        self.of_picture = Counter(question.item.image_name for question in questions)
        self.guesses: Guesses
        self.right: np.ndarray  # (left,), boolean
        self.types: dict[str, np.ndarray]  # places in `left`
        self.scores: dict[str, float]  # by type

    def _columns(self) -> tuple[list[str], list[str], list[str]]:
        kept = [self.questions[row] for row in self.left]
        return [q.question for q in kept], [q.answer for q in kept], [self.groups[row] for row in self.left]

    def score(self, seed: int) -> float | None:
        """What another counts."""
        return blind_score(*self._columns(), seed=seed).score

    def guess(self, seed: int) -> float:
        """Guess anew; the share guessed, each type's at least that of its most common answer."""
        asked, answers, groups = self._columns()
        self.guesses = blind_guesses(asked, answers, groups, seed=seed)
        self.right = right(self.guesses.answers, answers)
        places = defaultdict(list)
        for place, row in enumerate(self.left):
            places[self.questions[row].question_type].append(place)
        self.types = {kind: np.array(places[kind]) for kind in sorted(places)}
        self.scores, self.levelled = {}, np.zeros(len(self.left), dtype=bool)
        for kind, of_type in self.types.items():
            counts = np.array(list(Counter(answers[place] for place in of_type).values())) / len(of_type)
            score = self.right[of_type].mean()
            self.scores[kind] = max(float(score), float(counts.max()))
            # Drawing answers as often as they occur does as well: what is right now is luck.
            self.levelled[of_type] = score <= (counts**2).sum() + MARGIN
        return sum(score * len(self.types[kind]) for kind, score in self.scores.items()) / len(self.left)
