"""Numbers as people read them."""

import pytest

from blip2vqa.utils.formatting import MISSING, as_text, percent, points


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.951), "95.1%"),
        (percent(1), "100.0%"),
        (percent(0.5, 0), "50%"),
        (percent(None), MISSING),
        (points(0.598), "+59.8"),
        (points(-0.05), "-5.0"),
        (points(None), MISSING),
        (as_text(3 * 2**29, "{:.2f}", 2**30), "1.50"),
        (as_text(None, "{:.2f}"), MISSING),
    ],
)
def test_numbers_are_written_in_one_way(written, expected):
    assert written == expected
