"""What a listing says, in the words of the vocabulary."""

import pytest

from blip2vqa.generate.catalogue.facts import facts_of, named_in
from blip2vqa.generate.catalogue.vocabulary import KINDS
from helpers.drawn_catalogue import product


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
