"""Reduce what a listing says about a product to facts that a picture shows, in words of the closed vocabulary."""

import re
from collections.abc import Iterable

from blip2vqa.generate.catalogue.vocabulary import KINDS, OTHER, Phrases, vocabulary, words
from blip2vqa.generate.rows import Product

_SEGMENTS = re.compile(r"[,|;:(){}\[\]]|\s[-–—]\s")
# What follows these words in a name belongs to the product, or is what it goes with; it is not the product.
_BESIDE = re.compile(
    r"\b(?:with|w/|for|from|compatible|fits|includes?|including|to|suitable|plus|without|inspired)(?:\s|$)"
)
# "oak finish" is a colour and no wood, "marble print" no stone.
_LOOKS = set("finish effect color colour look print printed texture pattern style tone design".split())
COLORS_TOO = frozenset({"silver", "gold", "stone"})  # a material only in a phrase: "sterling silver"
_PIECES = set("cut foot feet heel leg neck ring toe top".split())
_NO_SHAPE = {"jewelry", "footwear", "clothing"}  # there it is the shape of a stone or of a toe


def facts_of(product: Product) -> dict[str, str]:
    """Reduce a listing to facts: kind → one word of the closed vocabulary, in the order of `KINDS`, as far as known.

    A kind is left out where its field says two things, or nothing that a picture shows ("Pack of 4" as a color).
    """
    known, texts = vocabulary(), product.texts
    name = _segments(product.name)
    facts = {"object": _object(product, name)}
    category = known.category_of.get(facts["object"] or "", "")
    facts["category"] = category if category in known.clear_categories else None
    facts["color"] = _color(texts.get("color", ()) or (_without_nouns(product.name),))
    if category == "jewelry" and facts["color"] == "white":  # of stones, or of gold that looks like silver
        facts["color"] = None
    facts["material"] = (
        _one("material", texts.get("material", ())[:1])
        or _one("material", texts.get("fabric_type", ())[:1])
        or _in_name(known.phrases["material"], name, not_alone=COLORS_TOO)
    )
    if category == "textiles" and facts["material"] not in known.textile_materials:
        facts["material"] = None
    if category not in _NO_SHAPE:
        facts["shape"] = _one("shape", texts.get("item_shape", ())) or _shape(name)
    if category != "jewelry":
        facts["pattern"] = (
            _one("pattern", texts.get("pattern", ()))
            or _one("pattern", texts.get("color", ()))
            or _in_name(known.phrases["pattern"], name, not_alone=frozenset({"solid"}))
        )
    if category in known.styles:
        styles = known.styles[category]
        facts["style"] = _meaning(styles, texts.get("style", ())) or _in_name(styles, name)
    return {kind: facts[kind] for kind in KINDS if facts.get(kind)}


def named_in(product: Product) -> frozenset[str]:
    """Collect the things, materials and patterns that occur in name, keywords or category path, whatever is said of them.

    None of them is safely a wrong answer: the bulb of a lamp, the frame of a clock, what a seller wants to be found by.
    Colors are left out, since the picture itself is asked for them.
    """
    text = words("; ".join([product.name, *product.texts.get("item_keywords", ()), *product.texts.get("node", ())]))
    phrases = vocabulary().phrases
    found = {value for kind in ("object", "material", "pattern") for *_, value in phrases[kind].find(text)}
    return frozenset(found - {OTHER})


def _segments(name: str) -> list[list[str]]:
    """Split a name into its parts, each a list of words, without what the product goes with."""
    name = re.sub(r"\(.*?\)|\bby amazon\b", " ", name.lower())
    return [words(_BESIDE.split(part)[0]) for part in _SEGMENTS.split(name)]


def _object(product: Product, name: list[list[str]]) -> str | None:
    """Find the noun for the product, by its type and its name; None where they disagree or say nothing."""
    known = vocabulary()
    text = known.product_types.get(product.product_type, product.product_type.replace("_", " "))
    typed, named = _noun([words(text)]), _noun(name) or _noun([words(product.name)])
    if named == "swatch" or not typed:
        noun = None if named in known.ambiguous else named
    elif named in (None, typed) or typed == OTHER:
        noun = typed
    else:
        noun = _settle(typed, named, product.name)
    return None if noun == OTHER else noun


def _noun(parts: Iterable[list[str]]) -> str | None:
    """Find the last noun of the first part that has one."""
    return next((found[-1][2] for part in parts if (found := vocabulary().phrases["object"].find(part))), None)


def _settle(typed: str, named: str, name: str) -> str | None:
    """Choose between the noun of the type and the one at the end of the name; None where either may be wrong."""
    known = vocabulary()
    alike = known.category_of.get(named) == known.category_of[typed]
    if alike and typed in known.generic:
        return named
    if named in known.ambiguous or (alike and named in known.hypernyms):
        return typed
    if frozenset((typed, named)) in known.overlapping:
        return named
    if named == OTHER or named in known.generic:  # the mount of a speaker, a battery's charger
        return None
    # "Stud earrings, cushion cut" under earrings are earrings; an "area rug" under lighting is no lamp.
    return typed if typed in known.phrases["object"].meanings(name) else None


def _only(found: set[str]) -> str | None:
    """Return the one element of a set; None for none or several."""
    return found.pop() if len(found) == 1 else None


def _meaning(phrases: Phrases, texts: Iterable[str]) -> str | None:
    """Find the one meaning that texts have; None for none or several."""
    return _only({meaning for text in texts for meaning in phrases.meanings(text)})


def _one(kind: str, texts: Iterable[str]) -> str | None:
    """Find the one value of a kind that texts name; None for none or several."""
    return _meaning(vocabulary().phrases[kind], texts)


def _noun_places(text: list[str]) -> set[int]:
    """Find the places of words that are part of a noun: a "paper shredder" is of no paper, a coffee table not brown."""
    return {place for start, end, _ in vocabulary().phrases["object"].find(text) for place in range(start, end)}


def _in_name(phrases: Phrases, name: list[list[str]], not_alone: frozenset[str] = frozenset()) -> str | None:
    """Find the one meaning that stands beside a noun in the name; None for none or several.

    Words of `not_alone` count only as part of a longer phrase.
    """
    found = set()
    for part in name:
        nouns = _noun_places(part)
        found |= {
            meaning
            for start, end, meaning in (phrases.find(part) if nouns else ())
            if start not in nouns
            and not _LOOKS.intersection(part[end : end + 1])
            and not (end == start + 1 and part[start] in not_alone)
        }
    return _only(found)


def _shape(name: list[list[str]]) -> str | None:
    """Find the one shape that the name gives to the product itself; None for none or several.

    It stands before the last noun of its part, and not before a word for a piece of the product: a "wall clock, heart emoji" is
    no heart, a "triangle foot handle" no triangle.
    """
    phrases, found = vocabulary().phrases, set()
    for part in name:
        last = max((start for start, *_ in phrases["object"].find(part)), default=0)
        found |= {
            shape
            for _, end, shape in phrases["shape"].find(part)
            if end <= last and not _PIECES.intersection(part[end : end + 1])
        }
    return _only(found)


def _without_nouns(name: str) -> str:
    text = words(name)
    nouns = _noun_places(text)
    return " ".join(word for place, word in enumerate(text) if place not in nouns)


def _color(texts: Iterable[str]) -> str | None:
    if any(vocabulary().several_colors.meanings(text) for text in texts):
        return None
    return _one("color", texts)
