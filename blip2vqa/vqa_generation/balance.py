"""No answer, and no kind of question, has more than its share: what is too much is dropped, evenly over the pictures."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from random import Random

from blip2vqa.vqa_generation.rows import Question

YES_NO = "yes/no"


class Balance:
    """Drops questions of a list, always from the pictures with the most left; among these the seed decides."""

    def __init__(self, questions: Sequence[Question], seed: int):
        self.questions = questions
        self.dropped: dict[int, str] = {}
        """Place in the list → why."""
        self._left = Counter(question.item.image_name for question in questions)
        # By content, so that the order of the questions decides nothing.
        self._key = [Random(f"{seed} {q.item.image_name} {q.question} {q.answer}").random() for q in questions]

    def left(self) -> Iterator[tuple[int, Question]]:
        """Places and questions not dropped yet."""
        return ((place, q) for place, q in enumerate(self.questions) if place not in self.dropped)

    def drop(self, places: Sequence[int], number: int, reason: str) -> None:
        """Drop so many of the questions at these places."""
        heap = [(-self._count(place), self._key[place], place) for place in places]
        heapq.heapify(heap)
        while number > 0 and heap:
            count, key, place = heapq.heappop(heap)
            if -count != self._count(place):  # its picture has lost others since
                heapq.heappush(heap, (-self._count(place), key, place))
                continue
            self.dropped[place] = reason
            self._left[self.questions[place].item.image_name] -= 1
            number -= 1

    def _count(self, place: int) -> int:
        return self._left[self.questions[place].item.image_name]

    def groups(self, key: Callable[[Question], Hashable]) -> dict[Hashable, list[int]]:
        """Places of the questions left, by key; None leaves a question out."""
        found = defaultdict(list)
        for place, question in self.left():
            if (name := key(question)) is not None:
                found[name].append(place)
        return found


def two_answers(question: Question) -> bool:
    """Whether half of its answers can be guessed: yes or no, taller or wider."""
    return question.answer in ("yes", "no", "taller", "wider", "height", "width")


def balance(
    questions: Sequence[Question], *, max_answer_share: float, max_yes_no_share: float, num_questions: int, seed: int
) -> dict[int, str]:
    """Places of the questions to drop, and why.

    As many stay with yes as with no about each value; no answer has more than `max_answer_share` of its type, no picture more
    than `num_questions`; those of two possible answers are at most `max_yes_no_share` of all.
    """
    state = Balance(questions, seed)
    pairs = state.groups(lambda q: (q.about or q.question.lower()) if two_answers(q) else None)
    for places in pairs.values():
        _even(state, places)
    for kind, places in state.groups(lambda q: None if two_answers(q) else q.question_type).items():
        _cap(state, places, max_answer_share, f"an answer above its share of {kind} questions")
    by_picture = state.groups(lambda q: q.item.image_name)
    for places in by_picture.values():
        state.drop(places, len(places) - num_questions, "more than asked for a picture")
    polar = [place for place, question in state.left() if two_answers(question)]
    others = sum(1 for _ in state.left()) - len(polar)
    if max_yes_no_share < 1:
        room = int(max_yes_no_share / (1 - max_yes_no_share) * others)
        state.drop(polar, len(polar) - room, "more than the share of yes/no")
    return state.dropped


def _even(state: Balance, places: list[int]) -> None:
    """As many of each answer as of the rarest."""
    by_answer = defaultdict(list)
    for place in places:
        by_answer[state.questions[place].answer].append(place)
    least = min(map(len, by_answer.values())) if len(by_answer) > 1 else 0
    for same in by_answer.values():
        state.drop(same, len(same) - least, "one answer outweighs the other")


def _cap(state: Balance, places: list[int], share: float, reason: str) -> None:
    """Bring every answer to at most `share` of them all, or, with fewer answers than that takes, to the same number."""
    by_answer = defaultdict(list)
    for place in places:
        by_answer[state.questions[place].answer].append(place)
    sizes = [len(same) for same in by_answer.values()]
    share = max(share, 1 / len(sizes))
    # With the largest such cap, what a cap leaves of the commonest answer is its share of what it leaves of all.
    fits = [cap for cap in range(1, max(sizes) + 1) if cap <= share * sum(min(size, cap) for size in sizes) + 1e-9]
    cap = max(fits, default=1)
    for same in by_answer.values():
        state.drop(same, len(same) - cap, reason)
