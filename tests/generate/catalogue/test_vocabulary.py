"""The closed vocabulary: how phrases are found, and the rules that its file keeps to."""

import re
import tomllib
from itertools import product as pairs
from pathlib import Path

import pytest

from blip2vqa.generate.ask.templates import wordings
from blip2vqa.generate.catalogue import vocabulary as module
from blip2vqa.generate.catalogue.vocabulary import KINDS, Phrases, vocabulary, words

RAW = tomllib.loads(Path(module.__file__).with_suffix(".toml").read_text(encoding="utf-8"))
NOUNS = {noun: phrases for group in RAW["objects"].values() for noun, phrases in group.items()}
TABLES = {
    **{kind: RAW[kind] for kind in ("colors", "materials", "shapes", "patterns")},
    **{f"styles of {category}": styles for category, styles in RAW["styles"].items()},
    "objects": NOUNS | {"other": RAW["other_things"]["nouns"]},
}
HIDDEN = {"other"}  # no phrase


def finder(table: str) -> Phrases:
    known = vocabulary()
    return known.styles[table.split()[-1]] if table.startswith("styles") else known.phrases[table.removesuffix("s")]


def test_words_are_in_lower_case_and_parted_by_marks():
    assert words("Mid-Century 4'x6' T_Shirt Weiß …") == ["mid", "century", "4'x6", "t", "shirt", "weiß"]


def test_the_longest_phrase_counts_and_takes_its_words():
    phrases = Phrases({"rose gold": "copper", "gold": "gold", "gold tone": None})
    assert phrases.find(words("a rose gold rose")) == [(1, 3, "copper")]
    assert phrases.meanings("gold tone, golden, gold, rose-gold and GOLD") == ["gold", "copper"]


# Rules of the file


@pytest.mark.parametrize("table", TABLES)
def test_every_answer_is_one_plain_word(table):
    assert [answer for answer in TABLES[table] if not re.fullmatch("[a-z]+", answer)] == []


@pytest.mark.parametrize("table", TABLES)
def test_every_phrase_is_found_and_means_one_thing(table):
    """Also that none is hidden by a longer one, or ignored: those two would never be found."""
    answers = ((answer, {answer, *phrases} - HIDDEN) for answer, phrases in TABLES[table].items())
    written = [(answer, phrase) for answer, phrases in answers for phrase in sorted(phrases)]
    assert [(answer, phrase) for answer, phrase in written if finder(table).meanings(phrase) != [answer]] == []


def test_categories_are_of_different_nouns_and_named_by_one_word():
    assert sum(map(len, RAW["objects"].values())) == len(vocabulary().category_of) == len(NOUNS)
    assert all(re.fullmatch("[a-z]+", category) for category in RAW["objects"])


def test_what_the_file_refers_to_exists():
    articles, named, known = wordings()["articles"], RAW["categories"], vocabulary()
    overlaps = {noun for pair in RAW["overlaps"]["pairs"] for noun in pair}
    assert overlaps | set().union(*RAW["generic"].values()) | set(articles["none"]) | set(articles["plural"]) <= set(
        NOUNS
    )
    assert {len(set(pair)) for pair in RAW["overlaps"]["pairs"]} == {2}
    assert set(named["clear"]) | set(named["around"]) | set(RAW["styles"]) <= set(RAW["objects"])
    assert set().union(*RAW["material_groups"]["groups"]) <= set(RAW["materials"])
    assert set(RAW["seen_as"]) == set(RAW["colors"]) - {"clear"}  # what is clear has the colour of what is behind it
    assert [
        text for text in RAW["product_types"].values() if text and len(known.phrases["object"].meanings(text)) != 1
    ] == []


# What could both be right


@pytest.mark.parametrize("kind", KINDS)
def test_what_could_both_be_is_symmetric_and_reflexive(kind):
    styles = {style for table in RAW["styles"].values() for style in table}
    values = list({"object": NOUNS, "category": RAW["objects"], "style": styles}.get(kind) or RAW[kind + "s"])
    could = vocabulary().could_both_be
    assert all(could(kind, value, value) for value in values)
    assert [pair for pair in pairs(values, values) if could(kind, *pair) != could(kind, *reversed(pair))] == []


@pytest.mark.parametrize(
    "kind, one, other, could",
    [
        ("object", "boot", "sandal", False), ("object", "boot", "shoe", True), ("object", "boot", "lamp", False),
        ("object", "shoe", "lamp", False),
        ("object", "shoe", "bag", False), ("object", "chair", "sofa", True), ("object", "chair", "bed", False),
        ("object", "cup", "goblet", True),
        ("category", "footwear", "clothing", False),
        ("color", "red", "blue", False), ("color", "silver", "gray", True), ("color", "silver", "gold", False),
        ("color", "gold", "beige", True),
        ("color", "clear", "blue", False), ("color", "red", "pink", True),
        ("material", "wood", "metal", False), ("material", "wood", "bamboo", True),
        ("material", "cotton", "denim", True), ("material", "gold", "metal", True),
        ("shape", "round", "oval", True), ("shape", "square", "rectangular", True), ("shape", "round", "square", False),
        ("shape", "heart", "round", False),
        ("pattern", "striped", "plaid", False), ("style", "modern", "rustic", True),
    ],
)  # fmt: skip
def test_what_could_both_be_right(kind, one, other, could):
    assert vocabulary().could_both_be(kind, one, other) == could
