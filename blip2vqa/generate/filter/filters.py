"""Filters that judge a question and its answer by their words and by the catalogue, without any model."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from blip2vqa.data.answers import CHOICE, normalize_answer, question_type
from blip2vqa.generate.catalogue.vocabulary import KINDS, vocabulary, words
from blip2vqa.generate.filter.agreement import answers_match
from blip2vqa.generate.rows import KEPT, Item, Question

LONGEST_ANSWER = 24  # characters
ALIKE = 90  # similarity, 0 to 100, from which on two questions of one picture with the same answer ask the same
THE_SAME = 95  # similarity from which on they do whatever their answers; "left" for "right" makes a larger difference
PROPORTIONS = {"taller": "taller", "wider": "wider", "height": "taller", "width": "wider"}

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_EMPTY = set("unknown none n na unclear various other others undefined null it this the".split())


def single_word(question: Question) -> str | None:
    """Say why to drop an answer that is not one word; none is cut."""
    answer = question.answer
    if not answer:
        return "no answer"
    if not _WORD.fullmatch(answer):
        return "more than one word"
    if len(answer) > LONGEST_ANSWER:
        return "a word too long"
    return "an answer that says nothing" if answer in _EMPTY else None


def fits_form(question: Question) -> str | None:
    """Say why to drop what is not a question, or an answer of another form than the question asks for.

    Yes or no answers what asks for it and nothing else; a number answers "how many" alone, a color "what color"; a choice is
    answered by one of the words offered, "what is this" by no color or shape; and no question contains its own answer.
    """
    if (verdict := question.verdicts.get("form", KEPT)) != KEPT:  # of the model that was to write a question
        return verdict
    text, answer = question.question.strip(), question.answer
    if not text.endswith("?") or len(text.split()) < 3:
        return "not a question"
    form, asked, polar = question_type(text), _WORD.findall(text.lower()), answer in ("yes", "no")
    offered = CHOICE.search(text.lower())
    if form == "yes/no" and not offered:
        return None if polar else "not yes or no"
    if polar:
        return "yes or no to another question"
    if offered:
        return None if answer in asked else "none of those offered"
    if answer in asked:
        return "the question names the answer"
    if form == "count":
        return None if normalize_answer(answer).isdigit() else "not a number"
    kind = _kind(question)
    if kind in KINDS and not _could_be(kind, answer, open_to_others=form != "color" and not question.about):
        return f"not {'an' if kind == 'object' else 'a'} {kind}"
    return None


def _kind(question: Question) -> str:
    """Tell the kind of fact that is asked for: the template's; for a back end's question by its words, else by its type."""
    if question.kind in KINDS:
        return question.kind
    form = question_type(question.question)
    return question.question_type if form in ("what", "other") else form


def _could_be(kind: str, answer: str, open_to_others: bool) -> bool:
    """Tell whether an answer is of a kind.

    It is in the kind's vocabulary, or, where other words are allowed, neither a number nor in the vocabulary of another kind.
    Objects have more names than the vocabulary knows, so for them other words are always allowed.
    """
    known = vocabulary()
    if known.values(kind, answer):
        return True
    if normalize_answer(answer).isdigit() or not (open_to_others or kind == "object"):
        return False
    forms = answer, answer.removesuffix("s")  # shapes and materials are there in the singular alone
    return not any(known.values(other, form) for other in KINDS for form in forms if other != kind)


def not_repeated(questions: Sequence[Question]) -> Iterator[str | None]:
    """Drop repeated questions of one picture: all but the first where the answers agree, every one where they differ."""
    from rapidfuzz import fuzz, utils

    by_picture = defaultdict(list)
    for place, question in enumerate(questions):
        # default_process puts a blank for a comma, which then stands beside another.
        text = " ".join(utils.default_process(question.question).replace("colour", "color").split())
        by_picture[question.item.image_name].append((place, text))
    reasons: dict[int, str] = {}
    for asked in by_picture.values():
        for number, (place, text) in enumerate(asked):
            for earlier, other in asked[:number]:
                one, two = questions[earlier], questions[place]
                similarity = fuzz.token_sort_ratio(text, other)
                # Texts about values of their own are alike by design.
                unlike = one.question_type != two.question_type or (one.about and two.about)
                if text != other and unlike:
                    continue
                if one.answer == two.answer and similarity >= ALIKE:
                    reasons.setdefault(place, "asked already" if text == other else "nearly asked already")
                elif similarity >= THE_SAME:
                    reasons[earlier] = reasons[place] = "two answers to one question"
    return (reasons.get(place) for place in range(len(questions)))


def agrees_with_listing(question: Question) -> str | None:
    """Say why to drop an answer that contradicts the catalogue."""
    return "the catalogue says otherwise" if _contradicts(question) else None


def _contradicts(question: Question) -> bool:
    """Tell whether an answer contradicts the catalogue, where that says anything of what is asked.

    It is another value, or a word that stands neither in the vocabulary nor in the listing's name and product type.
    """
    known, facts, answer = vocabulary(), question.item.facts, question.answer
    kind, value = question.about.partition("=")[0], question.value
    if value and kind in facts and answer in ("yes", "no"):
        return value == facts[kind] if answer == "no" else not known.could_both_be(kind, facts[kind], value)
    if answer in PROPORTIONS:
        return PROPORTIONS[answer] != facts.get("proportion", PROPORTIONS[answer])
    kind = _kind(question)
    # A category that is no fair question still tells whether an answer is right.
    fact = facts.get(kind) or (kind == "category" and known.category_of.get(facts.get("object", "")))
    if not fact:
        return False
    if named := known.values(kind, answer):
        return not known.could_both_be(kind, fact, named[0])
    return not answers_match(answer, fact) and not _is_named(answer, question.item)


def _is_named(answer: str, item: Item) -> bool:
    """Tell whether the name of a listing or its product type holds the answer, in singular or plural."""
    listed = words(f"{item.name} {item.product_type}")
    return all(any(answers_match(part, word) for word in listed) for part in words(answer))


FILTERS: dict[str, Callable[[Sequence[Question]], Iterator[str | None]]] = {
    "single word": partial(map, single_word),
    "form": partial(map, fits_form),
    "duplicates": not_repeated,
    "listing": partial(map, agrees_with_listing),
}
"""Each says of every question, in order, None or why it is dropped."""
