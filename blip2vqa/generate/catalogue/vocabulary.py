"""The closed vocabulary: words for what a picture can show, and the phrases of a catalogue that stand for them."""

import re
import tomllib
from functools import cache
from pathlib import Path

OTHER = "other"  # meaning of a thing that has no word of its own
KINDS = ("object", "category", "color", "material", "shape", "pattern", "style")
ALIKE_SHAPES = (frozenset({"round", "oval", "cylindrical"}), frozenset({"square", "rectangular"}))
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


class Phrases:
    """Phrases with their meanings, found in a text by whole words, the longest first."""

    def __init__(self, meanings: dict[str, str | None]):
        """A phrase whose meaning is None is passed over, with the words in it."""
        self._meanings = {tuple(words(phrase)): meaning for phrase, meaning in meanings.items()}
        self._longest: dict[str, int] = {}  # phrase that begins with a word
        for phrase in self._meanings:
            self._longest[phrase[0]] = max(len(phrase), self._longest.get(phrase[0], 0))

    def find(self, text: list[str]) -> list[tuple[int, int, str]]:
        """Find (first word, one past the last, meaning) of every phrase, in order; no word is in two of them."""
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
        """Find the distinct meanings of the phrases in a text, in order."""
        return list(dict.fromkeys(meaning for *_, meaning in self.find(words(text))))

    def whole(self, text: str) -> set[str]:
        """Find the meanings of a text that is one phrase from end to end, with or without a final s."""
        forms = words(text), words(text.removesuffix("s"))  # "stripes": of such nouns the vocabulary has the singular
        found = [(form, self.find(form)) for form in forms]
        return {phrases[0][2] for form, phrases in found if len(phrases) == 1 and phrases[0][:2] == (0, len(form))}


class Vocabulary:
    """The words of vocabulary.toml, which explains them, arranged for look-ups."""

    def __init__(self, raw: dict):
        ignored = dict.fromkeys(raw["ignored"]["phrases"])
        nouns = {noun: phrases for group in raw["objects"].values() for noun, phrases in group.items()}
        things = _with_plurals(_by_phrase(nouns) | dict.fromkeys(raw["other_things"]["nouns"], OTHER))
        self.phrases = {
            "object": Phrases(things | ignored),
            "color": Phrases(_by_phrase(raw["colors"]) | ignored),
            "material": Phrases(ignored | _by_phrase(raw["materials"])),
            "shape": Phrases(_by_phrase(raw["shapes"]) | ignored),
            "pattern": Phrases(_with_plurals(_by_phrase(raw["patterns"])) | ignored),
        }
        self.styles = {category: Phrases(_by_phrase(styles) | ignored) for category, styles in raw["styles"].items()}
        """By category."""
        self.several_colors = Phrases(dict.fromkeys(raw["several_colors"]["words"], "several"))
        self.category_of = {noun: category for category, group in raw["objects"].items() for noun in group}
        self.product_types: dict[str, str] = raw["product_types"]
        self.generic = frozenset(raw["generic"]["nouns"])
        """Nouns that stand for several others."""
        self.hypernyms = frozenset(raw["generic"]["hypernyms"])
        """Generic nouns that a name may end in while the product type has the proper word."""
        self.ambiguous = frozenset(raw["generic"]["ambiguous"])
        """Words that are a noun only where the product type is of their category."""
        self.overlapping = frozenset(map(frozenset, raw["overlaps"]["pairs"]))
        """Pairs of nouns that are both right for some pictures."""
        self.clear_categories = frozenset(raw["categories"]["clear"])
        """Categories whose name is a fair answer to "what kind of product is it?"."""
        self.around = frozenset(noun for category in raw["categories"]["around"] for noun in raw["objects"][category])
        """Nouns of what may stand beside a product where its background is a room."""
        self.seen_as = {color: tuple(seen) for color, seen in raw["seen_as"].items()}
        """Color of the catalogue → colors of pixels that it may look like; the first one is never missing."""
        self.material_groups = tuple(map(frozenset, raw["material_groups"]["groups"]))
        self.textile_materials = frozenset(raw["material_groups"]["textiles"])
        self.same_answers = tuple(map(frozenset, raw["answers"]["same"]))
        self.irregular_plurals: dict[str, str] = raw["answers"]["irregular_plurals"]

    def values(self, kind: str, text: str) -> list[str]:
        """Find the values of a kind that a text names, in order; [] for a kind that has no vocabulary."""
        if kind == "category":
            categories = set(self.category_of.values())
            return [word for word in words(text) if word in categories]
        if kind == "style":
            return list(dict.fromkeys(style for styles in self.styles.values() for style in styles.meanings(text)))
        if kind not in self.phrases:
            return []
        return [value for value in self.phrases[kind].meanings(text) if value != OTHER]

    def could_both_be(self, kind: str, one: str, other: str) -> bool:
        """Tell whether both values may be right for one picture, so that neither is a wrong answer for the other."""
        if one == other or kind == "style":
            return True
        if kind == "object":
            same = self.category_of.get(one) == self.category_of.get(other)
            vague = one in self.generic or other in self.generic
            return frozenset((one, other)) in self.overlapping or (same and vague)
        if kind == "color":
            return other in self.seen_as.get(one, ()) or one in self.seen_as.get(other, ())
        groups = self.material_groups if kind == "material" else ALIKE_SHAPES
        return any({one, other} <= group for group in groups)


def words(text: str) -> list[str]:
    """Split a text into words in lower case; hyphens and other marks end a word."""
    return _WORD.findall(text.lower())


@cache
def vocabulary() -> Vocabulary:
    """Read this package's vocabulary, once."""
    return Vocabulary(tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")))


def _by_phrase(table: dict[str, list[str]]) -> dict[str, str | None]:
    """Turn {meaning: phrases} into {phrase: meaning}; a meaning is a phrase, too."""
    return {phrase: meaning for meaning, phrases in table.items() for phrase in (meaning, *phrases)}


def _with_plurals(phrases: dict[str, str | None]) -> dict[str, str | None]:
    """Add regular plurals; irregular ones stand in the file."""
    return {plural(phrase): meaning for phrase, meaning in phrases.items()} | phrases


def plural(noun: str) -> str:
    """Form the regular plural."""
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"
