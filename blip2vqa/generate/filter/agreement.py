"""Tell when two answers mean the same."""

from functools import lru_cache

from blip2vqa.data.answers import normalize_answer
from blip2vqa.generate.catalogue.vocabulary import plural, vocabulary

YES, NO = {"yes", "yeah", "yep", "true", "correct"}, {"no", "nope", "false", "incorrect"}


@lru_cache(maxsize=100_000)
def answers_match(answer: str, predicted: str) -> bool:
    """Tell whether two answers are the same after the official normalisation.

    Yes and no have several words; singular and plural, and spellings such as "fibre", are the same. A word of the vocabulary
    stands for the others with its meaning: "navy" matches "blue", but not "teal".
    """
    one, other = normalize_answer(answer), normalize_answer(predicted)
    if not one or not other:
        return False
    for meaning in (YES, NO):
        if one in meaning:
            return other.split()[0] in meaning  # "yes, it is"
    joined = one.replace(" ", ""), other.replace(" ", "")
    if _same_word(*joined) or any({*joined} <= group for group in vocabulary().same_answers):
        return True
    # Words of the vocabulary that both texts, each as a whole, stand for within one kind of fact.
    meanings = {
        meaning for phrases in vocabulary().phrases.values() for meaning in phrases.whole(one) & phrases.whole(other)
    }
    return any(_same_word(meaning, text) for meaning in meanings for text in (one, other))


def _same_word(one: str, other: str) -> bool:
    return one == other or one in _plurals(other) or other in _plurals(one)


def _plurals(noun: str) -> set[str]:
    """List forms that may be the noun's plural. Wrong ones do no harm, as few of them are another noun."""
    found = {plural(noun), vocabulary().irregular_plurals.get(noun, plural(noun))}
    if noun.endswith(("f", "fe")):
        found.add(f"{noun.removesuffix('e')[:-1]}ves")
    return found
