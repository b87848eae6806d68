"""The chart of a made data set shows what its summary says."""

import io

import numpy as np
from PIL import Image

from blip2vqa.generate.report.distributions import draw_distributions
from helpers.data_set_summary import SUMMARY, UNKNOWN, changed


def decoded(summary: dict) -> np.ndarray:
    image = Image.open(io.BytesIO(draw_distributions(summary)))
    assert image.format == "PNG" and [round(dots) for dots in image.info["dpi"]] == [150, 150]
    return np.asarray(image.convert("RGB"))


def height(slots: list[int]) -> int:
    """Pixels that so many bars take, in each row of panels."""
    return int(150 * sum(60 + 24 * bars for bars in slots) / 100)


def test_the_picture_shows_the_numbers():
    pixels = decoded(SUMMARY)
    slots = [3, 9]  # bars above: two types, two product types, but room for three; below: eight answers and the others
    assert pixels.shape == (height(slots), 1800, 3)
    assert np.array_equal(pixels, decoded(changed()))
    other = changed()
    other["question_types"]["color"]["answers"]["black"] = 900
    assert not np.array_equal(pixels, decoded(other))
    for more in ({"product_types": {"chair": 2, "lamp": 1}}, {"blind": {"before": 0.5, "after": 0.1, "limit": 0.35}}):
        drawn = decoded(changed(**more))
        assert drawn.shape == pixels.shape and not np.array_equal(drawn, pixels)


def test_longer_bars_mean_more():
    def blue(share: int) -> int:
        cell = {"n": 100, "answers": {"a": share, "b": 100 - share}}
        pixels = decoded(changed(question_types={"color": cell}, product_types={}, blind=UNKNOWN)).astype(int)
        return int((abs(pixels - (0x56, 0xB4, 0xE9)).sum(axis=2) == 0).sum())

    assert blue(50) > 1.2 * blue(90)  # b is half as long as a, or a ninth of it


def test_odd_summaries_are_drawn():
    empty = decoded(changed(question_types={}, product_types={}, blind=UNKNOWN))
    assert empty.shape == (height([3]), 1800, 3)
    types = {
        rf"$\frac$ {number} " + "w" * 80: {"n": 3, "answers": {"六" * 90: 2, r"$\frac$": 1}} for number in range(20)
    }
    odd = changed(question_types=types, product_types={f"{'p' * 90}{number}": 1 for number in range(40)} | {"": 7})
    assert decoded(odd).shape == (height([15, 2, 2, 2, 2]), 1800, 3)
