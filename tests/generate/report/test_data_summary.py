"""The screen shows what the summary of a made data set says."""

from blip2vqa.generate.report.data_card import data_card
from blip2vqa.generate.report.data_summary import print_summary
from helpers.data_set_summary import EMPTY, SUMMARY, UNKNOWN, changed


def test_the_screen_shows_the_summary(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    left_out = {"not English": 3, "no usable picture": 12}
    summary = changed(
        catalogue=SUMMARY["catalogue"] | {"left_out": left_out},
        cost={"answers": 3, "input_tokens": 40, "output_tokens": 5, "usd": None},
    )
    summary["question_types"]["[bold]odd[/bold]"] = {"n": 1, "answers": {"[red]x": 1}}
    print_summary(summary)
    output = capsys.readouterr().out
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in output.splitlines() if line.startswith("│")
    ]
    assert ["balance", "9,003", "3,983", "r0 2,000; r1 1,000; r2 500; r3 250; r4 125; others 108"] in rows
    assert rows[-3:] == [
        ["yes/no", "5,003", "2", "50.0%", "yes"], ["color", "4,000", "40", "2.5%", "black"],
        ["[bold]odd[/bold]", "1", "1", "100.0%", "[red]x"],
    ]  # fmt: skip
    assert "after 33.3%, before 48.1%, limit 35.0%" in output
    assert "from 14,702 listings" in output and "12 no usable picture\n" in output
    assert "3 not English\n" in output and "/home/someone/out/vqa.csv, and train, val and test beside it\n" in output
    assert "9,003, 5.6 a picture" in output and "3 answers, 40 tokens sent, 5 received\n" in output
    assert max(map(len, output.splitlines())) <= 100


def test_nothing_made_is_shown_too(capsys):
    counts = dict.fromkeys(SUMMARY["counts"], 0)
    empty = changed(counts=counts, splits=EMPTY, question_types={}, product_types={}, funnel=[], blind=UNKNOWN)
    print_summary(empty)
    assert "not measured" in capsys.readouterr().out
    assert "0 questions on 0 pictures" in data_card(empty) and "## Filters" not in data_card(empty)
