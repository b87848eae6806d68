"""What is measured in a product's photograph: its colours, its proportions, and a hash for look-alikes."""

import hashlib

import pytest
from PIL import Image

from blip2vqa.data.images import BadImage
from blip2vqa.generate.catalogue.pictures import measure_picture
from blip2vqa.generate.catalogue.selecting import LOOK_ALIKE
from blip2vqa.generate.catalogue.vocabulary import vocabulary
from helpers.drawn_catalogue import PAINTS, WHITE, photograph, unlike


@pytest.fixture
def seen(tmp_path):
    def seen(image: Image.Image, name: str = "picture.png", **options):
        image.save(tmp_path / name, **options)
        return measure_picture(tmp_path / name)

    return seen


@pytest.mark.parametrize("paint", [*PAINTS])
def test_a_product_of_one_colour_has_that_colour_alone(seen, paint):
    paints = PAINTS | {"white": (235, 235, 235)}  # lighter ones are background
    assert seen(photograph(paints[paint])).colors == {paint: 1.0}


@pytest.mark.parametrize(
    "paint, name",
    [
        ((50, 50, 50), "black"), ((52, 52, 52), "gray"), ((200, 200, 200), "gray"), ((215, 215, 215), "white"),
        ((0, 0, 128), "blue"), ((0, 200, 200), "blue"), ((128, 0, 0), "red"), ((200, 120, 120), "pink"),
        ((255, 105, 180), "pink"),
        ((128, 128, 0), "yellow"), ((100, 50, 0), "brown"), ((210, 180, 140), "beige"), ((255, 165, 0), "orange"),
        ((75, 0, 130), "purple"),
        ((60, 80, 60), "green"),
    ],
)  # fmt: skip
def test_the_name_of_a_colour(seen, paint, name):
    assert seen(photograph(paint)).colors == {name: 1.0}


def test_every_colour_is_one_that_the_catalogue_s_may_look_like():
    assert set(PAINTS) == set().union(*vocabulary().seen_as.values())


def test_shares_are_of_the_product_and_tiny_ones_are_left_out(seen):
    image = photograph("red", "red", "red", "blue", size=(100, 100))
    image.paste(PAINTS["green"], (14, 14, 24, 24))  # 1 % of the product
    assert seen(image).colors == {"red": 0.74, "blue": 0.25}
    image.putpixel((24, 24), PAINTS["green"])
    assert seen(image).colors == {"red": 0.7399, "blue": 0.25, "green": 0.0101}


@pytest.mark.parametrize("size, ratio", [((40, 80), 2), ((80, 40), 0.5), ((80, 80), 1), ((100, 8), 0.08)])
@pytest.mark.parametrize("form", ["box", "ellipse"])
def test_proportions_are_those_of_the_box_around_the_product(seen, form, size, ratio):
    assert seen(photograph("red", form=form, size=size)).height_to_width == ratio


def test_proportions_are_of_all_parts_together(seen):
    image = Image.new("RGB", (128, 128), WHITE)
    for box in ((10, 10, 30, 30), (90, 50, 110, 60)):
        image.paste(PAINTS["blue"], box)
    assert seen(image).height_to_width == 0.5


@pytest.mark.parametrize("ground", [WHITE, (238, 238, 238), (250, 240, 238)])
def test_what_stands_before_white_is_cut_out(seen, ground):
    one = seen(photograph("red", size=(40, 80), ground=ground))
    assert (one.height_to_width, one.colors) == (2, {"red": 1.0})


@pytest.mark.parametrize("ground", [(237, 255, 255), "beige", "gray", "black"])
def test_before_another_background_nothing_is_cut_out_and_the_middle_counts(seen, ground):
    """The middle: half of the width and of the height."""
    one = seen(photograph("red", size=(64, 32), ground=PAINTS.get(ground, ground)))
    assert one.height_to_width is None
    assert one.colors["red"] == 0.5 and len(one.colors) == 2


@pytest.mark.parametrize("touching, cut_out", [(100, True), (104, False)])  # of 512 pixels at the border, 20 % are 102
def test_a_product_may_touch_the_border_a_little(seen, touching, cut_out):
    image = Image.new("RGB", (128, 128), WHITE)
    image.paste(PAINTS["red"], (0, 12, 20, 12 + touching))
    assert (seen(image).height_to_width is not None) == cut_out


def test_white_inside_the_product_is_the_product_s(seen):
    image = photograph("red", size=(80, 80))
    image.paste(WHITE, (44, 24, 84, 104))  # a window of 40 by 80 of the 80 by 80, closed by a frame
    image.paste(PAINTS["red"], (44, 24, 84, 25))
    image.paste(PAINTS["red"], (44, 103, 84, 104))
    closed = seen(image)
    assert closed.colors == {"red": 1 - 78 / 160, "white": 78 / 160}
    image.paste(WHITE, (44, 24, 84, 25))  # opened at the top, it is background
    assert seen(image).colors == {"red": 1.0}


@pytest.mark.parametrize("side, found", [(18, False), (19, True)])  # of 16384 pixels, 2 % are 328
def test_a_speck_is_no_product(seen, side, found):
    assert (seen(photograph("red", size=(side, side))).height_to_width is not None) == found


def test_a_white_picture_has_the_colour_of_its_middle(seen):
    one = seen(Image.new("RGB", (64, 64), WHITE))
    assert (one.height_to_width, one.colors) == (None, {"white": 1.0})


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 300), (300, 1)])
def test_the_smallest_pictures(seen, size):
    assert seen(Image.new("RGB", size, PAINTS["blue"])).colors == {"blue": 1.0}


@pytest.mark.parametrize("factor", [0.5, 2, 3])
@pytest.mark.parametrize("number", range(3))
def test_a_rescaled_copy_looks_alike_and_measures_alike(seen, number, factor):
    image = unlike(number)
    one, copy = seen(image), seen(image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS))
    assert (one.hash ^ copy.hash).bit_count() <= LOOK_ALIKE
    assert copy.colors["red"] > 0.95
    assert copy.height_to_width == 1
    assert one.digest != copy.digest


def test_a_jpeg_of_it_looks_alike(seen):
    one, copy = seen(unlike(0)), seen(unlike(0), "picture.jpg", quality=60)
    assert (one.hash ^ copy.hash).bit_count() <= LOOK_ALIKE


def test_other_pictures_do_not_look_alike(seen):
    hashes = [seen(unlike(number)).hash for number in range(12)]
    near = [(a ^ b).bit_count() for place, a in enumerate(hashes) for b in hashes[:place]]
    assert min(near) > LOOK_ALIKE and max(hashes) < 2**64


def test_the_digest_is_of_the_file(seen, tmp_path):
    digest = seen(unlike(0)).digest
    assert digest == hashlib.sha256((tmp_path / "picture.png").read_bytes()).hexdigest()


@pytest.mark.parametrize("content, reason", [(b"no picture", None), (b"", None), (None, "cannot be read")])
def test_what_is_no_picture_is_refused(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadImage, match=reason or "."):
        measure_picture(tmp_path / "a.png")


def test_transparent_ground_and_gray_pictures(seen):
    image = photograph("red", size=(40, 80)).convert("RGBA")
    image.putdata([(0, 0, 0, 0) if pixel[:3] == WHITE else pixel for pixel in image.get_flattened_data()])
    one = seen(image)
    assert one.height_to_width == 2 and one.colors == {"red": 1.0}
    assert seen(photograph("gray").convert("L")).colors == {"gray": 1.0}
