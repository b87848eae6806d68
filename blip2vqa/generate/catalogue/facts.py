"""What a listing says that a picture of the product shows, reduced to the closed vocabulary."""

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
    """What the catalogue says that a picture of the product shows: kind → value, in the order of `KINDS`, as far as known.

    A value is one word of the closed vocabulary. Where a field says two things, or nothing that a picture shows ("Pack of 4"
    as a colour, "efn_usca_" as a keyword), its kind is left out.
    """
    known, texts = vocabulary(), product.texts
    name = _segments(product.name)
    facts = {"object": _object(product, name)}
    category = known.category_of.get(facts["object"] or "", "")
    facts["category"] = category if category in known.clear_categories else None
    facts["color"] = _color(texts.get("color", ()) or (_without_nouns(product.name),))
    if category == "jewelry" and facts["color"] == "white":  # of stones or of gold, which looks like silver
        facts["color"] = None
    facts["material"] = _material(texts, name)
    if category == "textiles" and facts["material"] not in known.textile_materials:
        facts["material"] = None
    if category not in _NO_SHAPE:
        facts["shape"] = _one(known.shapes, texts.get("item_shape", ())) or _shape(name)
    if category != "jewelry":
        facts["pattern"] = _pattern(texts, name)
    if category in known.styles:
        styles = known.styles[category]
        facts["style"] = _one(styles, texts.get("style", ())) or _in_name(styles, name)
    return {kind: facts[kind] for kind in KINDS if facts.get(kind)}


def named_in(product: Product) -> frozenset[str]:
    """What the catalogue's words name, whatever they say of it: the bulb of a lamp, the frame of a clock, what a seller wants
    to be found by. None of it is safely a wrong answer. Without colours, which the picture shows better."""
    text = words("; ".join([product.name, *product.texts.get("item_keywords", ()), *product.texts.get("node", ())]))
    known = vocabulary()
    found = {value for phrases in (known.objects, known.materials, known.patterns) for *_, value in phrases.find(text)}
    return frozenset(found - {OTHER})


def _segments(name: str) -> list[list[str]]:
    """A name's parts, as words, without what the product goes with."""
    name = re.sub(r"\(.*?\)|\bby amazon\b", " ", name.lower())
    return [words(_BESIDE.split(part)[0]) for part in _SEGMENTS.split(name)]


def _noun(parts: Iterable[list[str]]) -> str | None:
    """The last noun of the first part that has one."""
    return next((found[-1][2] for part in parts if (found := vocabulary().objects.find(part))), None)


def _object(product: Product, name: list[list[str]]) -> str | None:
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


def _settle(typed: str, named: str, name: str) -> str | None:
    """The noun where the type says one and the end of the name another; None where either may be wrong."""
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
    return typed if typed in known.objects.meanings(name) else None


def _one(phrases: Phrases, texts: Iterable[str]) -> str | None:
    """The one meaning of the texts, None for none or several."""
    found = {meaning for text in texts for meaning in phrases.meanings(text)}
    return found.pop() if len(found) == 1 else None


def _in_name(phrases: Phrases, name: list[list[str]], alone: frozenset[str] = frozenset()) -> str | None:
    """The one meaning in the part of the name that says what the product is, but of words of `alone` that stand alone; None for
    none or several."""
    known, found = vocabulary(), set()
    for part in name:
        nouns = known.objects.find(part)
        if not nouns:
            continue
        inside = {place for start, end, _ in nouns for place in range(start, end)}  # a "paper shredder" is of no paper
        found |= {
            meaning
            for start, end, meaning in phrases.find(part)
            if start not in inside
            and not _LOOKS.intersection(part[end : end + 1])
            and not (end == start + 1 and part[start] in alone)
        }
    return found.pop() if len(found) == 1 else None


def _shape(name: list[list[str]]) -> str | None:
    """The one shape that stands before the last noun of a part, and not before a word for a piece of the product: a "wall
    clock, heart emoji" is no heart, a "triangle foot handle" no triangle."""
    known, found = vocabulary(), set()
    for part in name:
        last = max((start for start, *_ in known.objects.find(part)), default=0)
        found |= {
            shape
            for _, end, shape in known.shapes.find(part)
            if end <= last and not _PIECES.intersection(part[end : end + 1])
        }
    return found.pop() if len(found) == 1 else None


def _without_nouns(name: str) -> str:
    """A coffee table is not brown for its name, nor a wine glass red."""
    text = words(name)
    inside = {place for start, end, _ in vocabulary().objects.find(text) for place in range(start, end)}
    return " ".join(word for place, word in enumerate(text) if place not in inside)


def _color(texts: Iterable[str]) -> str | None:
    known = vocabulary()
    if any(known.several_colors.meanings(text) for text in texts):
        return None
    return _one(known.colors, texts)


def _material(texts: dict[str, tuple[str, ...]], name: list[list[str]]) -> str | None:
    materials = vocabulary().materials
    for field in ("material", "fabric_type"):
        if found := _one(materials, texts.get(field, ())[:1]):
            return found
    return _in_name(materials, name, alone=COLORS_TOO)


def _pattern(texts: dict[str, tuple[str, ...]], name: list[list[str]]) -> str | None:
    patterns = vocabulary().patterns
    for field in ("pattern", "color"):
        if found := _one(patterns, texts.get(field, ())):
            return found
    return _in_name(patterns, name, alone=frozenset({"solid"}))
