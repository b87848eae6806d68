"""Which pictures are asked about: even over types, the same for the same seed, look-alikes in one group."""

import os
import random
from collections import Counter
from dataclasses import replace
from itertools import product as pairs
from shutil import copyfile

import pytest

from blip2vqa.config.generate import CatalogueArguments
from blip2vqa.generate.catalogue import selecting
from blip2vqa.generate.catalogue.selecting import LOOK_ALIKE, choose_items, group_look_alikes
from blip2vqa.generate.catalogue.vocabulary import vocabulary
from blip2vqa.generate.rows import Product
from helpers.drawn_catalogue import photograph, product, save, unlike


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """40 pictures, 0.png to 39.png, no two alike."""
    return save(tmp_path_factory.mktemp("pictures"), **{str(number): unlike(number) for number in range(40)})


def choose(products, folder, num_images: int = 0, share: float = 1.0, seed: int = 0, all_pictures: bool = False):
    """(names of the items' pictures, items, counts without zeros)"""
    args = CatalogueArguments(num_images=num_images, max_product_type_share=share, all_pictures=all_pictures)
    counts = Counter()
    items = choose_items(products, folder, args, seed, counts)
    return [item.image_name for item in items], items, dict(+counts)


def of_types(**numbers: int) -> list[Product]:
    """So many products of each type, each with a picture of its own: 0.png, 1.png, …"""
    types = [kind for kind, number in numbers.items() for _ in range(number)]
    return [product(kind.title(), kind, f"{place}.png") for place, kind in enumerate(types)]


def types_of(items) -> dict[str, int]:
    return dict(Counter(item.product_type for item in items))


def test_an_item_has_what_the_listing_says_and_the_picture_shows(tmp_path):
    save(tmp_path, a=photograph("blue", size=(40, 80)))
    _, (item,), counts = choose(
        [product("Blue Boot " * 30, "boot", "a.png", "B7", item_keywords=["efn_usca_", "snow boots"])], tmp_path
    )
    assert (item.image_name, item.path, item.item_id, item.product_type) == ("a.png", tmp_path / "a.png", "B7", "boot")
    assert item.name == ("Blue Boot " * 30)[:200]
    assert item.facts == {"object": "boot", "category": "footwear", "color": "blue", "proportion": "taller"}
    assert (item.not_wrong, item.group, len(item.digest)) == ({"blue"}, 0, 64) and item.named == {"boot"}
    assert counts == {"pictures": 1}


def test_no_limit_takes_all_in_the_order_of_their_names(pictures):
    names, _, counts = choose(of_types(boot=7, lamp=3, sofa=2), pictures)
    assert names == sorted(f"{number}.png" for number in range(12))
    assert counts == {"pictures": 12}


@pytest.mark.parametrize(
    "wanted, taken",
    [(3, (1, 1, 1)), (6, (2, 2, 2)), (9, (4, 3, 2)), (14, (9, 3, 2)), (40, (20, 3, 2))],
)
def test_types_take_turns_until_they_have_no_more(pictures, wanted, taken):
    products = of_types(boot=20, lamp=3, sofa=2)
    assert types_of(choose(products, pictures, wanted)[1]) == dict(zip(("boot", "lamp", "sofa"), taken, strict=True))


@pytest.mark.parametrize("at_once", [1, 256])
@pytest.mark.parametrize("wanted, share, most", [(20, 0.4, 8), (20, 0.01, 5), (0, 0.5, 13), (0, 0.1, 7)])
def test_no_type_has_more_than_its_share(pictures, monkeypatch, wanted, share, most, at_once):
    """Of what is wanted, or of all 26; where there are few types, as many as share what is wanted out evenly."""
    monkeypatch.setattr(selecting, "AT_ONCE", at_once)
    _, items, counts = choose(of_types(boot=20, lamp=2, sofa=2, mop=2), pictures, wanted, share)
    assert types_of(items) == {"boot": most, "lamp": 2, "sofa": 2, "mop": 2}
    assert counts == {"pictures": most + 6, "more of a product type than its share": 20 - most}


def test_the_draw_depends_on_the_seed_alone(pictures):
    products = of_types(boot=20, lamp=8)
    draws = [choose(products, pictures, 8, seed=seed)[0] for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(names) for names in draws}) == 3
    assert {choose(of_types(boot=1, lamp=1), pictures, 1, seed=seed)[1][0].product_type for seed in range(6)} == {
        "boot",
        "lamp",
    }


@pytest.mark.parametrize("seed", range(4))
def test_the_draw_does_not_depend_on_the_order_of_the_products(pictures, seed):
    products = of_types(boot=9, lamp=9)
    shuffled = random.Random(seed).sample(products, len(products))
    assert choose(products, pictures, 7, seed=seed) == choose(shuffled, pictures, 7, seed=seed)


def test_a_type_more_leaves_the_draws_of_the_others_as_they_are(pictures):
    products = of_types(boot=9, lamp=9, sofa=9)
    fewer = set(choose(products[:18], pictures, 6)[0])
    assert fewer < set(choose(products, pictures, 9)[0])


def test_a_catalogue_without_types_goes_by_what_the_products_are(pictures):
    products = [replace(one, product_type="") for one in of_types(boots=9, lamp=2)]
    assert types_of(choose(products, pictures, 4)[1]) == {"boot": 2, "lamp": 2}


def test_what_is_no_object_of_the_vocabulary_is_left_out(pictures):
    names, _, counts = choose([product("Zebra", "zebra", "0.png"), product("Boot", "boot", "1.png")], pictures)
    assert (names, counts) == (["1.png"], {"not clear what it is": 1, "pictures": 1})


def test_of_two_listings_with_one_picture_the_first_is_taken(pictures):
    products = [product("Boot", images="0.png", item_id="A"), product("Sofa", images="0.png", item_id="B")]
    for one, other in (products, products[::-1]):
        _, items, counts = choose([one, other], pictures)
        assert [item.item_id for item in items] == [one.item_id]
        assert counts == {"picture of another listing, too": 1, "pictures": 1}


def test_pictures_of_the_same_bytes_are_taken_once(pictures, tmp_path):
    for name, source in {"a": 0, "b": 0, "c": 1}.items():
        copyfile(pictures / f"{source}.png", tmp_path / f"{name}.png")
    names, _, counts = choose([product("Boot", images=f"{name}.png") for name in "abc"], tmp_path)
    assert len(names) == 2 and "c.png" in names
    assert counts == {"picture already there": 1, "pictures": 2}


def test_missing_and_broken_pictures_are_counted_and_others_take_their_place(pictures, tmp_path):
    save(tmp_path, a=unlike(0), b=unlike(1))
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    products = [product("Boot", images=f"{name}.png") for name in ("broken", "missing", "a", "b")]
    names, _, counts = choose(products, tmp_path)
    assert (names, counts) == (["a.png", "b.png"], {"picture not usable": 2, "pictures": 2})
    for seed in range(6):  # in whatever turn the two come
        assert choose(products, tmp_path, 2, seed=seed)[0] == ["a.png", "b.png"]
    assert choose(products[:2], tmp_path) == ([], [], {"picture not usable": 2})
    assert choose([], tmp_path) == ([], [], {})


def test_no_picture_is_read_outside_the_folder(tmp_path):
    (tmp_path / "below").mkdir()
    save(tmp_path, a=unlike(0))
    _, items, counts = choose([product("Boot", images="../a.png")], tmp_path / "below")
    assert not items and counts["picture not usable"] == 1


def test_pictures_are_looked_at_in_batches_only_as_long_as_more_are_wanted(pictures, monkeypatch):
    measured, real = [], selecting.measure_picture
    monkeypatch.setattr(selecting, "AT_ONCE", 4)
    monkeypatch.setattr(selecting, "measure_picture", lambda path: measured.append(path) or real(path))
    assert len(choose(of_types(boot=20, lamp=8), pictures, 6)[0]) == 6
    assert len(measured) == 8


def test_the_main_picture_or_all(pictures):
    products = [product("Boot", images=("0.png", "1.png", "2.png")), product("Boot", images="3.png")]
    assert choose(products, pictures)[0] == ["0.png", "3.png"]
    names, items, _ = choose(products, pictures, all_pictures=True)
    assert names == ["0.png", "1.png", "2.png", "3.png"]
    groups = [item.group for item in items]
    assert groups[0] == groups[1] == groups[2] != groups[3]


# What the picture bears out


@pytest.mark.parametrize("red, kept", [(49, False), (50, True), (100, True)])  # of 100 rows
@pytest.mark.parametrize("rest", ["green", "blue"])
def test_a_color_that_the_picture_does_not_bear_out_is_dropped(tmp_path, red, kept, rest):
    save(tmp_path, a=photograph(*["red"] * red, *[rest] * (100 - red), size=(100, 100)))
    _, (item,), counts = choose([product("Bench", color="Red")], tmp_path)
    assert item.facts == {"object": "bench", "category": "furniture"} | ({"color": "red"} if kept else {})
    assert counts == {"pictures": 1} | ({} if kept else {"color not seen in the picture": 1})


@pytest.mark.parametrize(
    "said, paints, kept",  # of ten rows
    [
        ("Brown", {"brown": 2, "red": 3, "green": 5}, True), ("Brown", {"brown": 1, "red": 9}, False),
        ("Red", {"brown": 8, "red": 2}, True),
        ("Red", {"red": 2, "pink": 2, "blue": 6}, False), ("Green", {"blue": 10}, False), ("Red", {"red": 10}, True),
        # No pixels are named by these.
        ("Silver", {"gray": 5, "red": 5}, True), ("Silver", {"gray": 4, "red": 6}, False),
        ("Gold", {"gray": 10}, False),
        ("Gold", {"yellow": 10}, True), ("Clear", {"gray": 10}, False),
    ],
)  # fmt: skip
def test_half_looks_like_a_color_and_a_fifth_is_that_color(tmp_path, said, paints, kept):
    save(tmp_path, a=photograph(*[paint for paint, rows in paints.items() for _ in range(rows)]))
    _, (item,), _ = choose([product("Bench", color=said)], tmp_path)
    assert item.facts.get("color") == (said.lower() if kept else None)


@pytest.mark.parametrize("pattern, kept", [("Striped", False), ("Solid", True)])
def test_what_is_patterned_has_no_one_color(tmp_path, pattern, kept):
    save(tmp_path, a=photograph("red"))
    _, (item,), counts = choose([product("Bench", color="Red", pattern=pattern)], tmp_path)
    assert item.facts.get("color") == ("red" if kept else None)
    assert counts == {"pictures": 1} | ({} if kept else {"color of a pattern": 1})


@pytest.mark.parametrize("green, seen", [(15, {"red"}), (16, {"red", "green"}), (90, {"green"})])  # of 100 rows
def test_a_color_that_can_be_seen_is_not_wrong(tmp_path, green, seen):
    save(tmp_path, a=photograph(*["red"] * (100 - green), *["green"] * green, size=(100, 100)))
    assert choose([product("Bench")], tmp_path)[1][0].not_wrong == seen


def test_before_a_room_what_may_stand_around_is_not_wrong(tmp_path):
    save(tmp_path, a=photograph("red", ground=(30, 150, 50), size=(64, 32)))
    (item,) = choose([product("Bench")], tmp_path)[1]
    assert item.not_wrong == {"red", "green"} | vocabulary().around
    assert {"sofa", "lamp", "vase", "cup"} < item.not_wrong and not {"boot", "cable", "ring"} & item.not_wrong
    assert "proportion" not in item.facts


@pytest.mark.parametrize(
    "size, proportion", [((80, 100), "taller"), ((80, 99), None), ((99, 80), None), ((100, 80), "wider")]
)
def test_proportions_are_told_where_they_are_plain(tmp_path, size, proportion):
    save(tmp_path, a=photograph("red", size=size))
    assert choose([product("Bench")], tmp_path)[1][0].facts.get("proportion") == proportion


# Groups


ONES = (1 << 64) - 1


@pytest.mark.parametrize(
    "hashes, ids, expected",
    [
        ([], "", []), ([5], "a", [0]),
        ([0, ONES, ONES << 32 & ONES], "abc", [0, 1, 2]),
        ([0, ONES, ONES << 32 & ONES], "aba", [0, 1, 0]),  # one product
        ([0, 0b1111, 0b11111], "abc", [0, 0, 0]), ([0, 0b11111], "ab", [0, 1]),  # four bits, five bits
        ([0, 0b1111, 0b11111111, 0xFFF, ONES], "abcde", [0, 0, 0, 0, 1]),  # each like the next
        ([0, ONES, ONES ^ 1, ONES << 32 & ONES], "abca", [0, 1, 1, 0]),
        ([0, ONES, ONES ^ 1, ONES << 32 & ONES, 2], "abcdb", [0, 0, 0, 1, 0]),  # from product to look-alike to product
        ([ONES ^ 1 << 63, ONES], "ab", [0, 0]),
    ],
)  # fmt: skip
def test_groups(hashes, ids, expected):
    assert group_look_alikes(hashes, list(ids)) == expected


def test_groups_are_those_of_a_plain_search():
    rng = random.Random(0)
    centres = [rng.getrandbits(64) for _ in range(12)]
    hashes = [rng.choice(centres) ^ 1 << rng.randrange(64) ^ 1 << rng.randrange(64) for _ in range(50)]
    ids = [str(rng.randrange(400)) for _ in hashes]
    expected = list(range(50))
    for i, j in [*pairs(expected, repeat=2)] * 10:
        if ids[i] == ids[j] or (hashes[i] ^ hashes[j]).bit_count() <= LOOK_ALIKE:
            expected[i] = expected[j] = min(expected[i], expected[j])
    found = group_look_alikes(hashes, ids)
    assert len(set(zip(found, expected, strict=True))) == len(set(found)) == len(set(expected)) > 3


def test_look_alikes_of_different_products_are_in_one_group(pictures, tmp_path):
    one = unlike(0)
    save(tmp_path, a=one, b=one.resize((200, 200)), c=unlike(1))
    _, items, _ = choose([product("Boot", images=f"{name}.png") for name in "abc"], tmp_path)
    assert [item.group == items[0].group for item in items] == [True, True, False]


def test_products_that_share_a_picture_are_in_one_group(pictures):
    products = [
        product("Boot", images=("0.png", "1.png"), item_id="A"), product("Boot", images=("1.png", "2.png"), item_id="B"),
        product("Boot", images="3.png", item_id="C"),
    ]  # fmt: skip
    _, items, _ = choose(products, pictures, all_pictures=True)
    assert [item.item_id for item in items] == ["A", "A", "B", "C"]
    assert [item.group == items[0].group for item in items] == [True, True, True, False]


def test_products_whose_pictures_are_the_same_file_are_in_one_group(pictures, tmp_path):
    """Of the copies one is taken; the other pictures of both products stay together."""
    for name, source in {"a": 0, "b": 1, "c": 0, "d": 2, "e": 3}.items():
        copyfile(pictures / f"{source}.png", tmp_path / f"{name}.png")
    products = [
        product("Boot", images=("a.png", "b.png"), item_id="A"), product("Boot", images=("c.png", "d.png"), item_id="B"),
        product("Boot", images="e.png", item_id="C"),
    ]  # fmt: skip
    _, items, counts = choose(products, tmp_path, all_pictures=True)
    group = {item.image_name: item.group for item in items}
    assert counts["picture already there"] == 1 and len(items) == 4
    assert group["b.png"] == group["d.png"] != group["e.png"]


def test_a_picture_outside_the_folder_is_never_read(pictures, tmp_path):
    save(tmp_path, inside=unlike(1), outside=unlike(2))
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "inside.png").rename(folder / "inside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(folder / "pipe.png")
    named = [
        "inside.png",
        "../outside.png",
        str(tmp_path / "outside.png"),
        "link.png",
        "a/../../outside.png",
        "pipe.png",
    ]
    named += [r"..\outside.png"]
    names, _, counts = choose([product("Chair", "chair", name) for name in named], folder)
    assert names == ["inside.png"] and counts["picture not usable"] == 6
