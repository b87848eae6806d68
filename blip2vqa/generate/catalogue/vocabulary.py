"""The closed vocabulary: what a picture can show, found in the words of a catalogue."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OTHER = "other"  # a thing without a word of its own
KINDS = ("object", "category", "color", "material", "shape", "pattern", "style")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


class Phrases:
    """Finds phrases in a text, the longest first, by whole words."""

    def __init__(self, meanings: dict[str, str | None]):
        self._meanings = {tuple(words(phrase)): meaning for phrase, meaning in meanings.items()}
        self._longest: dict[str, int] = {}  # phrase that begins with a word
        for phrase in self._meanings:
            self._longest[phrase[0]] = max(len(phrase), self._longest.get(phrase[0], 0))

    def find(self, text: list[str]) -> list[tuple[int, int, str]]:
        """(first word, one past the last, meaning) of every phrase, in order; no word is in two of them."""
        found, place = [], 0
        while place < len(text):
            for length in range(min(self._longest.get(text[place], 0), len(text) - place), 0, -1):
                phrase = tuple(text[place : place + length])
                if phrase in self._meanings:
                    if self._meanings[phrase] is not None:
                        found.append((place, place + length, self._meanings[phrase]))
                    place += length - 1
                    break
            place += 1
        return found

    def meanings(self, text: str) -> list[str]:
        """Distinct meanings, in order."""
        return list(dict.fromkeys(meaning for *_, meaning in self.find(words(text))))


@dataclass(frozen=True)
class Vocabulary:
    """See vocabulary.toml."""

    objects: Phrases
    category_of: dict[str, str]
    """Noun → category."""
    generic: frozenset[str]
    """Nouns that stand for several others."""
    hypernyms: frozenset[str]
    """Generic ones that a name may end in while the product type has the proper word."""
    ambiguous: frozenset[str]
    """Nouns only where the product type is of their category."""
    overlapping: frozenset[frozenset[str]]
    """Pairs of nouns that one picture may be called by either."""
    clear_categories: frozenset[str]
    """Whose name is a fair answer to what kind of product it is."""
    around: frozenset[str]
    """Nouns of what may stand beside a product where its background is a room."""
    product_types: dict[str, str]
    colors: Phrases
    several_colors: Phrases
    seen_as: dict[str, tuple[str, ...]]
    """Colour of the catalogue → colours of pixels that it may look like, first the one that is never missing."""
    materials: Phrases
    material_groups: tuple[frozenset[str], ...]
    textile_materials: frozenset[str]
    shapes: Phrases
    patterns: Phrases
    styles: dict[str, Phrases]
    """By category."""

    def values(self, kind: str, text: str) -> list[str]:
        """Values of a kind that a text names, in order; [] for a kind that has no vocabulary."""
        if kind == "category":
            categories = set(self.category_of.values())
            return [word for word in words(text) if word in categories]
        if kind == "style":
            return list(dict.fromkeys(style for styles in self.styles.values() for style in styles.meanings(text)))
        phrases = {"object": self.objects, "color": self.colors, "material": self.materials, "shape": self.shapes}
        phrases["pattern"] = self.patterns
        return [value for value in phrases[kind].meanings(text) if value != OTHER] if kind in phrases else []

    def could_both_be(self, kind: str, one: str, other: str) -> bool:
        """Whether a picture may be rightly called by both values, so that neither is a wrong answer for the other."""
        if one == other:
            return True
        if kind == "object":
            same = self.category_of.get(one) == self.category_of.get(other)
            vague = one in self.generic or other in self.generic
            return frozenset((one, other)) in self.overlapping or (same and vague)
        if kind == "color":
            return other in self.seen_as.get(one, ()) or one in self.seen_as.get(other, ())
        if kind == "material":
            return any(one in group and other in group for group in self.material_groups)
        return (
            kind == "style"
            or {one, other} <= {"round", "oval", "cylindrical"}
            or {one, other} <= {"square", "rectangular"}
        )


def words(text: str) -> list[str]:
    """Words in lower case; hyphens and other marks part them."""
    return _WORD.findall(text.lower())


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary of this package."""
    raw = tomllib.loads((Path(__file__).parent / "vocabulary.toml").read_text(encoding="utf-8"))
    ignored = dict.fromkeys(raw["ignored"]["phrases"])
    nouns = {noun: phrases for group in raw["objects"].values() for noun, phrases in group.items()}
    return Vocabulary(
        objects=Phrases(_with_plurals(_spread(nouns) | dict.fromkeys(raw["other_things"]["nouns"], OTHER)) | ignored),
        category_of={noun: category for category, group in raw["objects"].items() for noun in group},
        generic=frozenset(raw["generic"]["nouns"]),
        hypernyms=frozenset(raw["generic"]["hypernyms"]),
        ambiguous=frozenset(raw["generic"]["ambiguous"]),
        overlapping=frozenset(map(frozenset, raw["overlaps"]["pairs"])),
        clear_categories=frozenset(raw["categories"]["clear"]),
        around=frozenset(noun for category in raw["categories"]["around"] for noun in raw["objects"][category]),
        product_types=raw["product_types"],
        colors=Phrases(_spread(raw["colors"]) | ignored),
        several_colors=Phrases(dict.fromkeys(raw["several_colors"]["words"], "several")),
        seen_as={color: tuple(seen) for color, seen in raw["seen_as"].items()},
        materials=Phrases(ignored | _spread(raw["materials"])),
        material_groups=tuple(map(frozenset, raw["material_groups"]["groups"])),
        textile_materials=frozenset(raw["material_groups"]["textiles"]),
        shapes=Phrases(_spread(raw["shapes"]) | ignored),
        patterns=Phrases(_with_plurals(_spread(raw["patterns"])) | ignored),
        styles={category: Phrases(_spread(styles) | ignored) for category, styles in raw["styles"].items()},
    )


def _spread(table: dict[str, list[str]]) -> dict[str, str | None]:
    return {phrase: meaning for meaning, phrases in table.items() for phrase in (meaning, *phrases)}


def _with_plurals(phrases: dict[str, str | None]) -> dict[str, str | None]:
    """Regular plurals, too; others stand in the file."""
    return {plural(phrase): meaning for phrase, meaning in phrases.items()} | phrases


def plural(noun: str) -> str:
    """The regular plural."""
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"
