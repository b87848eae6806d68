"""Two checks of a question by a model: it is answered from its picture, and not the same from another picture.

Nothing here imports torch until a model is asked.
"""

import hashlib
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2vqa.data.answers import normalize_answer
from blip2vqa.generate.catalogue.vocabulary import KINDS, words
from blip2vqa.generate.filter.agreement import NO, YES, answers_match
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item, Question

if TYPE_CHECKING:
    from blip2vqa.config.generate import WriterArguments

ROUND_TRIP, PICTURE_SWAP = "round trip", "picture swap"
KEPT = "kept"
_NAMES = ("object", "category")  # what a question calls the product by, whatever it asks


@dataclass
class Checked:
    """What the check model said to a question."""

    round_trip: str
    """From its own picture."""
    swapped: str
    """From another picture."""
    other: Item | None
    """Whose picture that was; None where all questions are about one picture."""


def check_questions(
    questions: Sequence[Question], args: "WriterArguments", ledger: Ledger, seed: int, progress: bool = True
) -> list[Checked]:
    """What `args.check_model`, a base or an adapter, answers to each question from its picture and from another one.

    All questions of a picture get the same other picture; each picture is looked at once for all that it is asked. Raises
    `InputError` for a model that is not usable, before its weights are read.
    """
    from blip2vqa.generate.ask.model_backend import find_answerer, respond

    model = find_answerer(args, args.check_model)
    others = draw_others([row.item for row in questions], seed)
    swapped = [(others[row.item.digest], row.question) for row in questions if row.item.digest in others]
    own = [(row.item, row.question) for row in questions]
    said = [one.text for one in respond(model, own + swapped, ledger, "checking" if progress else None)]
    from_others = iter(said[len(own) :])
    checked = []
    for row, round_trip in zip(questions, said, strict=False):
        other = others.get(row.item.digest)
        checked.append(Checked(round_trip, next(from_others) if other else "", other))
    return checked


def draw_others(items: Sequence[Item], seed: int) -> dict[str, Item]:
    """Digest → the item whose picture stands in for that one: of other content and, where there is one, of another product that
    does not look alike.

    Pictures have places on a circle, and each takes the next one after a place of its own, all drawn by `seed`: with a few
    pictures more or less, nearly all keep theirs, and what was said of them holds. {} for a single picture.
    """
    owner: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: (item.digest, item.item_id, item.image_name)):
        owner.setdefault(item.digest, item)
    circle = sorted(owner.values(), key=lambda item: _place(seed, item.digest))
    places = [_place(seed, item.digest) for item in circle]
    groups, products = len({item.group for item in circle}), len({item.item_id for item in circle})

    def differs(item: Item, other: Item) -> bool:
        unlike = item.group != other.group if groups > 1 else item.item_id != other.item_id or products == 1
        return item.digest != other.digest and unlike

    others = {}
    for item in circle if len(circle) > 1 else ():
        start = bisect(places, _place(seed, f"instead of {item.digest}"))
        following = (circle[(start + step) % len(circle)] for step in range(len(circle)))
        others[item.digest] = next(other for other in following if differs(item, other))
    return others


def _place(seed: int, what: str) -> bytes:
    return hashlib.sha256(f"{seed} {what}".encode()).digest()


def verdicts(question: Question, checked: Checked) -> dict[str, str]:
    """`ROUND_TRIP` and `PICTURE_SWAP` → "kept", or why not.

    The same answer from another picture speaks against a question, unless by the catalogue it is right there, too.
    """
    found = {ROUND_TRIP: KEPT, PICTURE_SWAP: KEPT}
    if not answers_match(question.answer, checked.round_trip):
        found[ROUND_TRIP] = f'answered "{checked.round_trip}"'
    if checked.other and answers_match(question.answer, checked.swapped) and not holds_for(question, checked.other):
        found[PICTURE_SWAP] = "the same answer from another picture"
    return found


def holds_for(question: Question, other: Item) -> bool:
    """Whether the answer is right for another item, too, as far as the catalogue knows.

    "no" is taken to be right wherever the facts do not say yes: what it denies is false of most things.
    """
    own = question.item.facts
    if question.question_type == "comparison" and question.about and question.kind not in KINDS:
        # Of height and width, in words of its own.
        return "proportion" in own and own["proportion"] == other.facts.get("proportion")
    asked, answer = _asked(question, other), normalize_answer(question.answer)
    right = [
        any(answers_match(value, fact) for fact in (other.facts.get(kind, ""), *other.not_wrong))
        for kind, value in asked.items()
    ]
    return not any(right) if answer in NO else bool(right) and all(right)


def _asked(question: Question, other: Item) -> dict[str, str]:
    """The facts that an answer speaks of, {kind: value}; where only the question's words tell, those that they name."""
    own, answer = question.item.facts, normalize_answer(question.answer)
    if question.kind in KINDS:
        return {question.kind: question.about.partition("=")[2] or question.answer}
    if answer in YES | NO:
        named, there = _named(question.question, own), _named(question.question, other.facts)
        if answer in NO:
            return {kind: value for kind, value in there.items() if kind not in named}
        return {kind: value for kind, value in named.items() if kind not in _NAMES} or named
    if question.question_type in own:
        return {question.question_type: question.answer}
    return {kind: question.answer for kind, fact in own.items() if answers_match(question.answer, fact)}


def _named(question: str, facts: dict[str, str]) -> dict[str, str]:
    """Those of the facts whose value a question names."""
    text = words(question)
    return {kind: value for kind, value in facts.items() if any(answers_match(value, word) for word in text)}
