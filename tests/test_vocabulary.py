"""The closed vocabulary: what is found in the words of a listing, and the rules that its file keeps to."""

import re
import tomllib
from itertools import product as pairs
from pathlib import Path

import pytest

from blip2vqa.vqa_generation import vocabulary as module
from blip2vqa.vqa_generation.templates import wordings
from blip2vqa.vqa_generation.vocabulary import KINDS, Phrases, facts_of, named_in, vocabulary, words
from catalogue import product

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
    return known.styles[table.split()[-1]] if table.startswith("styles") else getattr(known, table)


def fact(kind: str, name: str, product_type: str = "", **texts) -> str | None:
    return facts_of(product(name, product_type, **texts)).get(kind)


# What a listing says


@pytest.mark.parametrize(
    "name, product_type, noun",
    [
        # Where type and name say two things, there is no telling …
        ("Leather Sandal", "boot", None), ("Oak Chair", "shoes", None), ("Area Rug", "lamp", None),
        ("Speaker Wall Mount", "speaker", None), ("Battery Charger", "battery", None), ("Grill Cover", "pan", None),
        # … unless the name has the type's word, too, or both may be said, or one is the other's wider word.
        ("Towel Hook and Hanger", "storage_hook", "hook"), ("Ottoman", "bench", "ottoman"), ("Cabinet Knob", "handle", "knob"),
        ("Leather Sandal", "shoes", "sandal"), ("Derby Shoe", "shoes", "oxford"), ("Tote Bag", "handbag", "handbag"),
        ("Gladiator Sandal Flat", "sandal", "sandal"), ("Lamp Shade 5", "table_lamp", "lamp"),
        ("", "shoes", "shoe"), ("Men's 8", "shoes", "shoe"), ("Spinner", "luggage", "suitcase"),
        # Types that are read as another text, or not at all.
        ("", "fineearring", "earring"), ("Gold Band", "finering", "ring"), ("", "screen_protector", "protector"),
        ("Bath Towel", "home_bed_and_bath", "towel"), ("", "home", None), ("", "cellular_phone_case", "case"),
        # Without a type that says something, the last noun of the first part that has one.
        ("Shoe Rack", "", "rack"), ("Lamp Table", "", "table"), ("Table Lamp", "", "lamp"),
        ("Zebra, Sofa, Bed", "", "sofa"),
        ("Cup (for Plate)", "", "cup"), ("Sofa - Bed Sheet", "", "sofa"), ("Drinking Glass", "zzz", "goblet"),
        ("Nothing", "", None),
        # What comes after these words is not the product.
        ("Chair for Desk", "", "chair"), ("Sofa with Ottoman", "", "sofa"), ("Table w/ Lamp", "", "table"),
        ("Case Compatible with Camera", "", "case"), ("Bed without Mattress", "", "bed"),
        ("For Sofa: Pillow", "", "pillow"),
        ("For Sofa", "", "sofa"),
        # A name that ends in another thing is of a thing without a word.
        ("Monitor Stand", "", None), ("Sofa Cover", "furniture_cover", None), ("Knife Holders", "", None),
        ("Pan", "pan_organizer", None),
        # Words that are as often something else are nouns only where the type is of their category.
        ("Napkin Ring", "", None), ("Ring", "finering", "ring"), ("Pump", "", None), ("Pump", "shoes", "pump"),
        ("Ball", "sofa", "sofa"),
        # A swatch is of cloth, whatever its type.
        ("Sofa Fabric Swatch", "sofa", "swatch"), ("Swatches", "curtain", "swatch"),
        # Plurals, regular and not; British words; apostrophes, marks and capitals.
        ("BOXES", "", "box"), ("Watches", "", "watch"), ("Batteries", "", "battery"), ("Trays", "", "tray"),
        ("Knives", "", "knife"),
        ("Scarves", "", "scarf"), ("Shelves", "", "shelf"), ("Mattresses", "", "mattress"), ("Pyjamas", "", "pajamas"),
        ("Torch", "", "flashlight"), ("Trainers", "", "sneaker"), ("Women's Boots", "", "boot"),
        ("Women’s Boots!", "", "boot"),
        ("T-Shirt", "", "shirt"), ("Flip-Flop", "", "sandal"), ("Chairman", "", None),
        # Ways of speaking.
        ("Ring Light", "", None), ("Key Ring", "", None), ("Heart Rate Monitor", "", "monitor"),
    ],
)  # fmt: skip
def test_the_noun_of_a_product(name, product_type, noun):
    assert fact("object", name, product_type) == noun


@pytest.mark.parametrize(
    "name, color, expected",
    [
        ("Rug", "Blue", "blue"), ("Rug", "Navy Blue", "blue"), ("Rug", "Grey", "gray"), ("Rug", "off-white", "white"),
        ("Rug", "Sky_Blue", "blue"), ("Rug", "Oil-Rubbed Bronze", "brown"), ("Rug", ("Black", "Schwarz"), "black"),
        ("Rug", "Rose Gold", "copper"), ("Rug", "Gold", "gold"), ("Rug", "Off", None), ("Rug", "Bluebell", None),
        # Two colours, and words for many.
        ("Rug", "Black/White", None), ("Rug", ("Black", "White"), None), ("Rug", "Multi-Coloured", None),
        ("Rug", "Blue, Multi", None),
        ("Rug", "Multicolor", None), ("Rug", "assorted red", None),
        # No colour: not what the name says instead.
        ("Blue Rug", "Pack of 4", None), ("Blue Rug", "efn_usca_", None), ("Blue Rug", "Red", "red"),
        # Where the field is missing, the name.
        ("Blue Rug", (), "blue"), ("Rug, 2 x 3 - Blue", (), "blue"), ("Blue and Red Rug", (), None),
        ("Multicolour Blue Rug", (), None),
        ("Coffee Table", (), None), ("Black Wine Glass", (), "black"), ("Table, Oak Finish", (), "brown"),
        ("Warm White Bulb", (), None),
    ],
)  # fmt: skip
def test_the_color_of_a_product(name, color, expected):
    texts = {"color": color} if color else {}
    assert fact("color", name, **texts) == expected


@pytest.mark.parametrize(
    "name, texts, expected",
    [
        ("Chair", {"material": "Solid Wood"}, "wood"), ("Solid Oak Chair", {}, "wood"),
        ("Chair", {"material": "Aluminium"}, "metal"),
        ("Chair", {"fabric_type": "100% Cotton"}, "cotton"),
        ("Chair", {"material": "Steel", "fabric_type": "Velvet"}, "metal"),
        ("Chair", {"material": "n/a", "fabric_type": "Velvet"}, "velvet"),
        ("Chair", {"material": "Wood and Metal"}, None), ("Chair", {"material": "Steel, Iron"}, "metal"),
        ("Steel Chair", {"material": "efn_usca_"}, "metal"), ("Chair", {"item_keywords": "leather chair"}, None),
        # In a name: beside a noun, not as a part of it, nor as what it looks like.
        ("Leather Chair", {}, "leather"), ("Chair (for a Sofa, Leather Bed)", {}, None), ("Paper Shredder", {}, None),
        ("Wine Glass", {}, None),
        ("Oak Finish Table", {}, None),
        ("Oak Table", {}, "wood"), ("Table in Marble Print", {}, None), ("Chair, Leather", {}, None),
        ("Wood and Steel Table", {}, None),
        ("Wooden Table with Metal Legs", {}, "wood"), ("Stone & Beam Sofa", {}, None),
        ("Stone & Beam Marble Table", {}, "stone"),
        # A bare "silver" is a colour.
        ("Silver Ring", {}, None), ("Sterling Silver Ring", {}, "silver"), ("Gold Lamp", {}, None),
        ("Ring", {"material": "Gold"}, "gold"),
    ],
)  # fmt: skip
def test_the_material_of_a_product(name, texts, expected):
    assert fact("material", name, **texts) == expected


@pytest.mark.parametrize(
    "kind, name, texts, expected",
    [
        ("category", "Boot", {}, "footwear"), ("category", "Vase", {}, None), ("category", "Zebra", {}, None),
        ("shape", "Rug", {"item_shape": "Circular"}, "round"), ("shape", "Round Table", {}, "round"),
        ("shape", "Round Square Rug", {}, None),
        ("shape", "Oval Table", {"item_shape": "Round"}, "round"), ("shape", "Round Toe Boot", {}, None),
        ("shape", "Round Tufted Wood Table", {}, "round"), ("shape", "Triangle Foot Handle", {}, None),
        ("shape", "Round Ring Binder", {}, None), ("shape", "Wall Clock Heart", {}, None),
        ("color", "Earring", {"color": "White"}, None), ("color", "Chair", {"color": "White"}, "white"),
        ("shape", "Earring", {"item_shape": "Round"}, None), ("shape", "Pocket Square", {}, None),
        ("pattern", "Rug", {"pattern": "Stripes"}, "striped"),
        ("pattern", "Rug", {"color": "Blue Plaid"}, "plaid"), ("pattern", "Floral Rug", {}, "floral"),
        ("pattern", "Rug", {"pattern": ("Plaid", "Floral")}, None), ("pattern", "Rug", {"pattern": "Plain"}, "solid"),
        ("pattern", "Plaid Rug", {"pattern": "Stripe"}, "striped"), ("pattern", "Solid Rug", {}, None),
        ("pattern", "Floral Earring", {}, None),
        ("style", "Modern Lamp", {}, "modern"), ("style", "Lamp", {"style": "Mid-Century"}, "modern"),
        ("style", "Formal Lamp", {}, None),
        ("style", "Formal Boot", {}, "formal"), ("style", "Modern Cup", {}, None),
        ("style", "Modern Rustic Lamp", {}, None),
        ("style", "Hardshell Suitcase", {}, "hardside"),
    ],
)  # fmt: skip
def test_other_facts_of_a_product(kind, name, texts, expected):
    assert fact(kind, name, **texts) == expected


def test_facts_stand_in_the_order_of_their_kinds_and_nothing_is_made_up():
    said = {"style": "Modern", "pattern": "Solid", "item_shape": "Round", "material": "Wood", "color": "Brown"}
    facts = facts_of(product("Coffee Table", "table", **said))
    assert list(facts.values()) == ["table", "furniture", "brown", "wood", "round", "solid", "modern"]
    assert tuple(facts) == KINDS
    assert facts_of(product("", "")) == {}


def test_what_the_words_of_a_catalogue_name_is_not_safely_wrong():
    lamp = product(
        "Floor Lamp with Bulb, Brass", "lamp", color="Gold", style="Modern",
        item_keywords=["masala boxes", "leather couch", "efn_usca_", "red"], node=["Rooms", "Striped Pillow Covers"],
    )  # fmt: skip
    assert named_in(lamp) == {"lamp", "bulb", "metal", "box", "leather", "sofa", "striped", "pillowcase"}
    assert named_in(product("Zebra")) == frozenset()


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
    assert [text for text in RAW["product_types"].values() if text and len(known.objects.meanings(text)) != 1] == []


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
