"""Limit the share of each answer and of each kind of question, dropping evenly over the pictures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from random import Random

from blip2vqa.generate.rows import Question

PAIRS = {answer: pair for pair in (("yes", "no"), ("taller", "wider"), ("height", "width")) for answer in pair}
"""Each answer of a question with two possible answers → both of them."""


class Balance:
    """A list of questions that loses some, always of the pictures with the most left; ties are broken by the seed."""

    def __init__(self, questions: Sequence[Question], seed: int):
        self.questions = questions
        self.dropped: dict[int, str] = {}
        """Place in the list → why."""
        self._pictures = [question.item.image_name for question in questions]
        self._left = Counter(self._pictures)
        # Drawn by content, so that the order of the questions decides nothing.
        self._key = [Random(f"{seed} {q.item.image_name} {q.question} {q.answer}").random() for q in questions]

    def left(self) -> Iterator[tuple[int, Question]]:
        """Yield the places and questions that are not dropped yet."""
        return ((place, q) for place, q in enumerate(self.questions) if place not in self.dropped)

    def drop(self, places: Sequence[int], number: int, reason: str) -> None:
        """Drop `number` of the questions at these places; none where it is negative."""
        order = sorted(places, key=lambda place: (self._key[place], place))
        self.dropped |= dict.fromkeys(take_evenly(order, max(number, 0), self._pictures, self._left), reason)

    def groups(self, key: Callable[[Question], Hashable]) -> dict[Hashable, list[list[int]]]:
        """List the places of the questions left by answer, for each key; questions whose key is None are left out."""
        found = defaultdict(lambda: defaultdict(list))
        for place, question in self.left():
            if (name := key(question)) is not None:
                found[name][question.answer].append(place)
        # By name, since what one group loses decides what the next one does.
        return {name: [places for _, places in sorted(found[name].items())] for name in sorted(found)}

    def pairs(self) -> list[list[list[int]]]:
        """List places by answer, for each value asked about and each pair of possible answers.

        Questions that a back end worded go together by type, since few of them are asked twice.
        """
        about = self.groups(lambda q: (q.about or q.question_type, PAIRS[q.answer]) if q.answer in PAIRS else None)
        return list(about.values())


def take_evenly(rows: Sequence[int], number: int, pictures: Sequence[str], left: Counter) -> list[int]:
    """Take `number` of the rows, each time the first of those whose picture has the most questions left.

    `pictures` names every row's picture; `left`, the questions by picture, loses those taken.
    """
    room, before = {}, Counter()
    for row in rows:
        picture = pictures[row]
        room[row] = left[picture] - before[picture]
        before[picture] += 1
    taken = sorted(rows, key=lambda row: -room[row])[:number]
    left.subtract(pictures[row] for row in taken)
    return taken


def balance(
    questions: Sequence[Question], *, max_answer_share: float, max_yes_no_share: float, num_questions: int, seed: int
) -> dict[int, str]:
    """Choose the questions to drop; returns their places, each with its reason.

    What is left has as many "yes" as "no" about each value; no answer above `max_answer_share` of its type, or, where the
    type has too few answers for that, an equal share of each (a single one keeps all); no picture with more than
    `num_questions`; and at most `max_yes_no_share` of questions with two possible answers.
    """
    state = Balance(questions, seed)
    _cap_answers(state, max_answer_share)
    _even_pairs(state)
    for by_answer in state.groups(lambda q: q.item.image_name).values():
        places = [place for same in by_answer for place in same]
        state.drop(places, len(places) - num_questions, "more than asked for a picture")
    # The limit for a picture upsets both a little; from here on, no step upsets the ones before it.
    _cap_answers(state, max_answer_share)
    _even_pairs(state)
    _limit_pairs(state, max_yes_no_share)
    return state.dropped


def _cap_answers(state: Balance, share: float) -> None:
    """Cut every answer of a type to the largest number that is at most `share` of what such a cut leaves of the type."""
    for kind, by_answer in state.groups(lambda q: None if q.answer in PAIRS else q.question_type).items():
        sizes = [len(same) for same in by_answer]
        reachable = max(share, 1 / len(sizes))
        fits = [
            cap for cap in range(1, max(sizes) + 1) if cap <= reachable * sum(min(size, cap) for size in sizes) + 1e-9
        ]
        for same in by_answer:
            state.drop(same, len(same) - max(fits, default=1), f"an answer above its share of {kind} questions")


def _even_pairs(state: Balance) -> None:
    """Keep as many questions with one answer as with the other, none where only one is given."""
    for by_answer in state.pairs():
        least = min(map(len, by_answer)) if len(by_answer) > 1 else 0
        for same in by_answer:
            state.drop(same, len(same) - least, "one answer outweighs the other")


def _limit_pairs(state: Balance, share: float) -> None:
    """Bring even pairs of answers down to `share` of all questions, every value by the same factor."""
    pairs = state.pairs()
    number = sum(len(same) for by_answer in pairs for same in by_answer)
    others = sum(1 for _ in state.left()) - number
    if share * (number + others) >= number - 1e-9:
        return
    kept, owed = share / (1 - share) * others / number, 1e-9
    for by_answer in pairs:
        owed += kept * len(by_answer[0])
        for same in by_answer:
            state.drop(same, len(same) - int(owed), "more than the share of yes/no")
        owed -= int(owed)
