"""What makes a question with its answer unfit, told from the two alone and from the catalogue."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from blip2vqa.data.answers import CHOICE, normalize_answer, question_type
from blip2vqa.generate.catalogue.vocabulary import KINDS, vocabulary, words
from blip2vqa.generate.filter.agreement import answers_match
from blip2vqa.generate.rows import Item, Question

LONGEST_ANSWER = 24  # characters
ALIKE = 90  # of 100: similarity of two questions about one picture from which on they ask the same, if the answer is the same
THE_SAME = 95  # from which on they do whatever their answers: "left" and "right" make a larger difference
PROPORTIONS = {"taller": "taller", "wider": "wider", "height": "taller", "width": "wider"}
Verdicts = Iterator[str | None]
"""One a question, in order: None keeps it, else why it is dropped."""

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_EMPTY = {
    "unknown",
    "none",
    "n",
    "na",
    "unclear",
    "various",
    "other",
    "others",
    "undefined",
    "null",
    "it",
    "this",
    "the",
}


def single_word(questions: Sequence[Question]) -> Verdicts:
    """Answers of more than one word are rejected, never cut."""
    for question in questions:
        answer = question.answer
        if not answer:
            yield "no answer"
        elif not _WORD.fullmatch(answer):
            yield "more than one word"
        elif len(answer) > LONGEST_ANSWER:
            yield "a word too long"
        elif answer in _EMPTY:
            yield "an answer that says nothing"
        else:
            yield None


def fits_form(questions: Sequence[Question]) -> Verdicts:
    """Yes or no to what asks for it and to nothing else, a number to "how many" alone, one of those offered to a choice, a
    colour to "what color", no shape to "what is this", and no question that names its own answer."""
    for question in questions:
        yield _misfit(question)


def _misfit(question: Question) -> str | None:
    if (said := question.verdicts.get("form", "kept")) != "kept":  # by the back end, which asked for a question
        return said
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
    """Of fact that it asks for: as the templates say; of a back end's, by its words, or else by the type that it was given."""
    form = question_type(question.question)
    return question.kind if question.kind in KINDS else question.question_type if form in ("what", "other") else form


def _could_be(kind: str, answer: str, open_to_others: bool) -> bool:
    """Whether an answer is of a kind: of its vocabulary, or else, where it is open to other words, neither a number nor of the
    vocabulary of another kind. Of objects more have a name than the vocabulary knows."""
    known = vocabulary()
    if known.values(kind, answer):
        return True
    if normalize_answer(answer).isdigit() or not (open_to_others or kind == "object"):
        return False
    forms = answer, answer.removesuffix("s")  # shapes and materials are there in the singular alone
    return not any(known.values(other, form) for other in KINDS for form in forms if other != kind)


def not_repeated(questions: Sequence[Question]) -> Verdicts:
    """The first of those that ask the same of one picture, word for word or nearly, with the same answer; where their answers
    differ, none of them is kept."""
    from rapidfuzz import fuzz, utils

    by_picture = defaultdict(list)
    for place, question in enumerate(questions):
        # A comma leaves two spaces.
        text = " ".join(utils.default_process(question.question).replace("colour", "color").split())
        by_picture[question.item.image_name].append((place, text))
    reasons: dict[int, str] = {}
    for asked in by_picture.values():
        for number, (place, text) in enumerate(asked):
            for earlier, other in asked[:number]:
                one, two = questions[earlier], questions[place]
                similarity = 100 if text == other else _similarity(one, two, fuzz.token_sort_ratio(text, other))
                if one.answer == two.answer and similarity >= ALIKE:
                    reasons.setdefault(place, "asked already" if text == other else "nearly asked already")
                elif similarity >= THE_SAME:
                    reasons[earlier] = reasons[place] = "two answers to one question"
    return (reasons.get(place) for place in range(len(questions)))


def _similarity(one: Question, two: Question, of_texts: float) -> float:
    """Of two questions, 0 to 100; none where each asks about a value of its own, which differ by design."""
    return of_texts if one.question_type == two.question_type and not (one.about and two.about) else 0


def agrees_with_listing(questions: Sequence[Question]) -> Verdicts:
    """An answer that contradicts what the catalogue says, where it says anything of what is asked: another value, or a word
    that stands neither in the vocabulary nor in the listing's name and product type."""
    for question in questions:
        yield "the catalogue says otherwise" if _contradicts(question) else None


def _contradicts(question: Question) -> bool:
    known, facts, answer = vocabulary(), question.item.facts, question.answer
    about, _, value = question.about.partition("=")
    if value and about in facts and answer in ("yes", "no"):
        return value == facts[about] if answer == "no" else not known.could_both_be(about, facts[about], value)
    if answer in PROPORTIONS:
        return PROPORTIONS[answer] != facts.get("proportion", PROPORTIONS[answer])
    kind = _kind(question)
    # Also where the category is no fair question: an answer may be right.
    fact = facts.get(kind) or (kind == "category" and known.category_of.get(facts.get("object", "")))
    if not fact:
        return False
    if said := known.values(kind, answer):
        return not known.could_both_be(kind, fact, said[0])
    return not answers_match(answer, fact) and not _is_named(answer, question.item)


def _is_named(answer: str, item: Item) -> bool:
    """Whether the name of a listing or its product type has the answer, in singular or plural."""
    listed = words(f"{item.name} {item.product_type}")
    return all(any(answers_match(part, word) for word in listed) for part in words(answer))


FILTERS: dict[str, Callable[[Sequence[Question]], Verdicts]] = {
    "single word": single_word,
    "form": fits_form,
    "duplicates": not_repeated,
    "listing": agrees_with_listing,
}
