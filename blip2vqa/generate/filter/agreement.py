"""When two answers are the same."""

from functools import lru_cache

from blip2vqa.data.answers import normalize_answer
from blip2vqa.generate.catalogue.vocabulary import plural, vocabulary, words

YES, NO = {"yes", "yeah", "yep", "true", "correct"}, {"no", "nope", "false", "incorrect"}
# Words of the vocabulary are known by themselves, "gray" and "grey" among them. These are not in it, or are two words of it.
SAME = (
    {"aluminum", "aluminium"},
    {"fiber", "fibre"},
    {"jewelry", "jewellery"},
    {"pajamas", "pyjamas"},
    {"multi", "multicolor", "multicolour", "multicolored", "multicoloured", "colorful", "colourful"},
    {"tshirt", "tee"},
    {"woolen", "woollen", "wool"},
)
IRREGULAR = {
    "child": "children", "foot": "feet", "man": "men", "mouse": "mice", "person": "people", "tooth": "teeth", "woman": "women",
}  # fmt: skip


@lru_cache(maxsize=100_000)
def answers_match(answer: str, said: str) -> bool:
    """Whether two answers are the same: by the official normalisation, as yes or no, in singular or plural, spelt otherwise,
    or one of them being the vocabulary's word for the other ("blue" for "navy", but not "navy" for "teal")."""
    one, other = normalize_answer(answer), normalize_answer(said)
    if not one or not other:
        return False
    for meaning in (YES, NO):
        if one in meaning:
            return other.split()[0] in meaning  # "yes, it is"
    joined = one.replace(" ", ""), other.replace(" ", "")
    if _same_word(*joined) or any({*joined} <= group for group in SAME):
        return True
    common = _meanings(one) & _meanings(other)
    return any(_same_word(meaning, text) for _, meaning in common for text in (one, other))


def _same_word(one: str, other: str) -> bool:
    return one == other or one in _plurals(other) or other in _plurals(one)


def _plurals(noun: str) -> set[str]:
    """What may be its plural: it only has to tell answers apart, and few nouns are another's wrong plural."""
    found = {plural(noun), IRREGULAR.get(noun, plural(noun))}
    if noun.endswith(("f", "fe")):
        found.add(f"{noun.removesuffix('e')[:-1]}ves")
    return found


def _meanings(text: str) -> set[tuple[str, str]]:
    """(kind, word of the vocabulary) for a text that as a whole is in it."""
    known, found = vocabulary(), set()
    for parts in (words(text), words(text.removesuffix("s"))):  # of adjectives' nouns it has the singular: "stripe"
        for kind in ("objects", "colors", "materials", "shapes", "patterns"):
            phrases = getattr(known, kind).find(parts)
            if len(phrases) == 1 and phrases[0][:2] == (0, len(parts)):
                found.add((kind, phrases[0][2]))
    return found
