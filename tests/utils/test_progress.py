"""Progress where there is no terminal: lines, and nothing drawn over."""

import pytest

from blip2vqa.utils import progress
from blip2vqa.utils.progress import ProgressLines, show_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set: `clock(seconds)`."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def set_clock(seconds: float) -> None:
        now[0] = seconds

    return set_clock


def test_a_line_now_and_then_with_rate_and_time_left(clock, capsys):
    with show_progress(total=4000, desc="encoding images", unit="image") as bar:
        for second in range(1, 71):
            clock(second)
            bar.update(20)
        bar.set_postfix_str("2 failures")
        clock(100)
        bar.update(0)
    assert isinstance(bar, ProgressLines)
    assert capsys.readouterr().err == (
        "encoding images: 600 of 4,000 images (15%), 20 images/s, 2 min 50 s left\n"
        "encoding images: 1,200 of 4,000 images (30%), 20 images/s, 2 min 20 s left\n"
        "encoding images: 1,400 of 4,000 images (35%), 14 images/s, 3 min 6 s left, 2 failures\n"
    )


def test_short_work_and_hidden_work_print_nothing(clock, capsys):
    assert list(show_progress(range(5), "checking", 5, unit="row")) == [0, 1, 2, 3, 4]
    hidden = show_progress(range(5), "checking", 5, disable=True)
    for number in hidden:
        clock(100 * number)
    assert capsys.readouterr().err == ""


def test_what_was_done_before_is_not_in_the_rate(clock, capsys):
    bar = show_progress(total=100, initial=50, desc="asking", unit="picture")
    clock(30)
    bar.update(30)
    assert capsys.readouterr().err == "asking: 80 of 100 pictures (80%), 1 pictures/s, 0 min 20 s left\n"


def test_without_a_total_there_is_no_time_left(clock, capsys):
    bar = show_progress(desc="reading", unit="row")
    clock(40)
    bar.update(80)
    assert capsys.readouterr().err == "reading: 80 rows, 2 rows/s\n"


@pytest.mark.parametrize(
    ("unit", "units"),
    [("batch", "batches"), ("query", "queries"), ("box", "boxes"), ("day", "days"), ("image", "images")],
)
def test_units_stand_in_the_plural(clock, unit, units):
    clock(0)
    bar = show_progress(total=9, desc="validation loss", unit=unit)
    clock(3)
    bar.update(3)
    assert bar.line() == f"validation loss: 3 of 9 {units} (33%), 1 {units}/s, 0 min 6 s left"


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = show_progress(range(3), "x", 3, unit="row", disable=True)
    assert not isinstance(bar, ProgressLines) and list(bar) == [0, 1, 2]
