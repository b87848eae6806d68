"""Check questions by a model: it answers them right from their picture, and not the same from another picture.

Nothing here imports torch until a model is asked.
"""

import hashlib
from bisect import bisect
from collections.abc import Sequence
from typing import NamedTuple

from blip2vqa.config.generate import WriterArguments
from blip2vqa.data.answers import normalize_answer
from blip2vqa.generate.catalogue.vocabulary import KINDS, words
from blip2vqa.generate.filter.agreement import NO, YES, answers_match
from blip2vqa.generate.filter.funnel import Funnel
from blip2vqa.generate.ledger import Ledger
from blip2vqa.generate.rows import Item, Question

ROUND_TRIP, PICTURE_SWAP = "round trip", "picture swap"
_NAMES = ("object", "category")  # kinds of facts that a question may use as a name for the product, whatever it asks


class CheckAnswers(NamedTuple):
    """The answers of the check model to one question: from its own picture, and from that of `other`, if there is any."""

    own: str
    swapped: str
    other: Item | None


def check_by_model(funnel: Funnel, args: WriterArguments, ledger: Ledger, seed: int) -> None:
    """Pass the questions left through both checks by `args.check_model`. Raises as `check_questions`."""
    answers = check_questions(funnel.left, args, ledger, seed)
    own = [round_trip_problem(question, found) for question, found in zip(funnel.left, answers, strict=True)]
    funnel.pass_through(ROUND_TRIP, own)
    passed = [found for found, problem in zip(answers, own, strict=True) if problem is None]
    funnel.pass_through(PICTURE_SWAP, map(picture_swap_problem, funnel.left, passed))


def check_questions(
    questions: Sequence[Question], args: WriterArguments, ledger: Ledger, seed: int
) -> list[CheckAnswers]:
    """Let `args.check_model`, a base or an adapter, answer each question from its picture and from another one.

    All questions of a picture get the same other picture, and each picture is encoded once. Raises `InputError` for a model
    that is not usable, before its weights are read.
    """
    from blip2vqa.generate.ask.respondent import find_answerer, respond

    model = find_answerer(args, args.check_model)
    others = draw_others([question.item for question in questions], seed)
    own = [(question.item, question.question) for question in questions]
    swapped = [(others[item.digest], text) for item, text in own if item.digest in others]
    texts = [text for text, _ in respond(model, own + swapped, ledger, "checking")]
    from_others = iter(texts[len(own) :])
    return [
        CheckAnswers(text, next(from_others) if other else "", other)
        for text, other in zip(texts, [others.get(item.digest) for item, _ in own], strict=False)
    ]


def draw_others(items: Sequence[Item], seed: int) -> dict[str, Item]:
    """Draw, for each picture, the item whose picture replaces it in the swap; by the picture's digest, {} for a single picture.

    The other picture has other content and shows, where there is one, another product that does not look alike. Pictures have
    places on a circle, and each takes the next one after a place of its own, all drawn by `seed`: with a few pictures more or
    less nearly all keep theirs, and the answers in the ledger still hold.
    """
    # Of pictures with the same content, the first by its names.
    by_name = sorted(items, key=lambda item: (item.item_id, item.image_name), reverse=True)
    circle = sorted({item.digest: item for item in by_name}.values(), key=lambda item: _place(seed, item.digest))
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


def round_trip_problem(question: Question, answers: CheckAnswers) -> str | None:
    """Say why the question fails the round trip: the model answers otherwise from its picture. None where it passes."""
    return None if answers_match(question.answer, answers.own) else f'answered "{answers.own}"'


def picture_swap_problem(question: Question, answers: CheckAnswers) -> str | None:
    """Say why the question fails the picture swap: the same answer from another picture, where it is wrong. Else None."""
    if answers.other is None or not answers_match(question.answer, answers.swapped):
        return None
    return None if holds_for(question, answers.other) else "the same answer from another picture"


def holds_for(question: Question, other: Item) -> bool:
    """Tell whether the answer is right for another item, too, as far as the catalogue knows.

    "no" is taken to be right wherever the facts do not say yes, since what it denies is false of most things.
    """
    own = question.item.facts
    if question.question_type == "comparison" and question.about and question.kind not in KINDS:
        # Height and width are compared in words that are no values of a kind.
        return "proportion" in own and own["proportion"] == other.facts.get("proportion")
    asked, answer = _asked(question, other), normalize_answer(question.answer)
    right = [
        any(answers_match(value, fact) for fact in (other.facts.get(kind, ""), *other.not_wrong))
        for kind, value in asked.items()
    ]
    return not any(right) if answer in NO else bool(right) and all(right)


def _asked(question: Question, other: Item) -> dict[str, str]:
    """Find the facts that an answer states or denies, {kind: value}; of a back end's question, those that its words name."""
    own, answer = question.item.facts, normalize_answer(question.answer)
    if question.kind in KINDS:
        return {question.kind: question.value or question.answer}
    if answer in YES | NO:
        named, there = _named(question.question, own), _named(question.question, other.facts)
        if answer in NO:
            return {kind: value for kind, value in there.items() if kind not in named}
        return {kind: value for kind, value in named.items() if kind not in _NAMES} or named
    if question.question_type in own:
        return {question.question_type: question.answer}
    return {kind: question.answer for kind, fact in own.items() if answers_match(question.answer, fact)}


def _named(question: str, facts: dict[str, str]) -> dict[str, str]:
    """Find the facts whose value a question names."""
    text = words(question)
    return {kind: value for kind, value in facts.items() if any(answers_match(value, word) for word in text)}
