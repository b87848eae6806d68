"""No answer, and no kind of question, has more than its share: what is too much is dropped, evenly over the pictures."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from random import Random

from blip2vqa.generate.rows import Question

PAIRS = {answer: pair for pair in (("yes", "no"), ("taller", "wider"), ("height", "width")) for answer in pair}
"""Answer of a question that has two possible ones → both."""


class Balance:
    """Drops questions of a list, always from the pictures with the most left; among these the seed decides."""

    def __init__(self, questions: Sequence[Question], seed: int):
        self.questions = questions
        self.dropped: dict[int, str] = {}
        """Place in the list → why."""
        self._pictures = [question.item.image_name for question in questions]
        self._left = Counter(self._pictures)
        # By content, so that the order of the questions decides nothing.
        self._key = [Random(f"{seed} {q.item.image_name} {q.question} {q.answer}").random() for q in questions]

    def left(self) -> Iterator[tuple[int, Question]]:
        """Places and questions not dropped yet."""
        return ((place, q) for place, q in enumerate(self.questions) if place not in self.dropped)

    def drop(self, places: Sequence[int], number: int, reason: str) -> None:
        """Drop so many of the questions at these places."""
        order = sorted(places, key=lambda place: (self._key[place], place))
        self.dropped |= dict.fromkeys(take_evenly(order, max(number, 0), self._pictures, self._left), reason)

    def groups(self, key: Callable[[Question], Hashable]) -> dict[Hashable, list[int]]:
        """Places of the questions left, by key; None leaves a question out."""
        found = defaultdict(list)
        for place, question in self.left():
            if (name := key(question)) is not None:
                found[name].append(place)
        return dict(sorted(found.items()))  # by name: what one group loses decides what the next does


def take_evenly(rows: Sequence[int], number: int, pictures: Sequence[str], left: Counter) -> list[int]:
    """So many of the rows, each time one of the picture with the most questions left, the first of these.

    `pictures` has every row's; `left`, the number of questions by picture, loses those taken.
    """
    room, before = {}, Counter()
    for row in rows:
        picture = pictures[row]
        room[row] = left[picture] - before[picture]
        before[picture] += 1
    taken = sorted(rows, key=lambda row: -room[row])[:number]
    left.subtract(pictures[row] for row in taken)
    return taken


def two_answers(question: Question) -> bool:
    """Whether half of its answers can be guessed: yes or no, taller or wider."""
    return question.answer in PAIRS


def balance(
    questions: Sequence[Question], *, max_answer_share: float, max_yes_no_share: float, num_questions: int, seed: int
) -> dict[int, str]:
    """Places of the questions to drop, and why.

    As many stay with yes as with no about each value; no answer has more than `max_answer_share` of its type, or, where the
    type has too few answers for that, each of them the same share (a single one all of it); no picture has more than
    `num_questions`; those of two possible answers are at most `max_yes_no_share` of all. All of it holds of what is left.
    """
    state = Balance(questions, seed)
    _cap_answers(state, max_answer_share)
    _even_pairs(state)
    for places in state.groups(lambda q: q.item.image_name).values():
        state.drop(places, len(places) - num_questions, "more than asked for a picture")
    # What the pictures lost upsets it a little; from here on, nothing that a step drops upsets those before it.
    _cap_answers(state, max_answer_share)
    _even_pairs(state)
    _share_pairs(state, max_yes_no_share)
    return state.dropped


def _cap_answers(state: Balance, share: float) -> None:
    for kind, places in state.groups(lambda q: None if two_answers(q) else q.question_type).items():
        _cap(state, places, share, f"an answer above its share of {kind} questions")


def _pairs(state: Balance) -> list[dict[str, list[int]]]:
    """Of each value asked about and pair of answers, places by answer; questions that a back end worded go together by type,
    since few of them are asked twice."""
    about = state.groups(lambda q: (q.about or q.question_type, PAIRS[q.answer]) if two_answers(q) else None)
    return [_by_answer(state, places) for places in about.values()]


def _even_pairs(state: Balance) -> None:
    """As many with one answer as with the other, none where only one is given."""
    for by_answer in _pairs(state):
        least = min(map(len, by_answer.values())) if len(by_answer) > 1 else 0
        for same in by_answer.values():
            state.drop(same, len(same) - least, "one answer outweighs the other")


def _share_pairs(state: Balance, share: float) -> None:
    """Bring even pairs of answers down to `share` of all questions, every value by as much."""
    pairs = _pairs(state)
    number = sum(len(same) for by_answer in pairs for same in by_answer.values())
    others = sum(1 for _ in state.left()) - number
    if share * (number + others) >= number - 1e-9:
        return
    kept, owed = share / (1 - share) * others / number, 1e-9
    for by_answer in pairs:
        owed += kept * len(next(iter(by_answer.values())))
        for same in by_answer.values():
            state.drop(same, len(same) - int(owed), "more than the share of yes/no")
        owed -= int(owed)


def _by_answer(state: Balance, places: list[int]) -> dict[str, list[int]]:
    by_answer = defaultdict(list)
    for place in places:
        by_answer[state.questions[place].answer].append(place)
    return dict(sorted(by_answer.items()))


def _cap(state: Balance, places: list[int], share: float, reason: str) -> None:
    """Bring every answer to at most `share` of them all; with fewer answers than that takes, to the same number, so that a
    single answer stays as it is."""
    by_answer = _by_answer(state, places)
    sizes = [len(same) for same in by_answer.values()]
    share = max(share, 1 / len(sizes))
    # With the largest such cap, what a cap leaves of the commonest answer is its share of what it leaves of all.
    fits = [cap for cap in range(1, max(sizes) + 1) if cap <= share * sum(min(size, cap) for size in sizes) + 1e-9]
    cap = max(fits, default=1)
    for same in by_answer.values():
        state.drop(same, len(same) - cap, reason)
