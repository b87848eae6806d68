"""Tables as a log file shows them."""

from blip2vqa.reporting.tables import format_block, print_score_table
from helpers.run_scores import METRICS, SCORER, scores


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]


def test_score_table_in_a_log_is_whole_and_without_colours(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)  # which tells rich to write as if to a terminal
    print_score_table(METRICS, "Validation [40 rows]")
    output = capsys.readouterr().out
    assert "\x1b" not in output and "Validation [40 rows]" in output
    lines = [cells(line) for line in output.splitlines()]
    assert ["accuracy", "VQA accuracy", "BERTScore F1", "n"] in lines
    assert ["base model", "12.5%", "25.0%", "-0.0125", "40"] in lines
    assert ["base + adapter", "97.5%", "50.0%", "0.9000", "40"] in lines
    assert ["blind baseline (no image)", "50.0%", "-", "-", "40"] in lines
    assert ["adapter, images swapped", "25.0%", "-", "-", "40"] in lines
    assert ["color", "12.5%", "97.5%", "50.0%", "25.0%", "30"] in lines
    assert ["[odd] type", "-", "-", "-", "-", "10"] in lines
    assert "Empty predictions, counted as wrong: base model 3" in output
    assert SCORER in " ".join(output.split())


def test_score_table_shows_only_what_there_is(capsys):
    print_score_table({"base": {"accuracy": None, "n": 0}, "adapter": None}, "Nothing")
    output = capsys.readouterr().out
    assert ["base model", "-", "0"] in [cells(line) for line in output.splitlines()]
    assert "VQA" not in output and "BERTScore" not in output and "adapter" not in output and "type" not in output


def test_score_table_of_another_systems_predictions(capsys):
    print_score_table({"predictions": scores(0.5)}, "Score")
    assert ["predictions", "50.0%", "40"] in [cells(line) for line in capsys.readouterr().out.splitlines()]


def test_summary_block():
    assert format_block("Training", {"model": "tiny", "trainable parameters": "1 of 2\nand more", "none": ""}) == (
        "Training\n"
        "  model:                 tiny\n"
        "  trainable parameters:  1 of 2\n"
        "                         and more\n"
        "  none:                  -"
    )
    assert format_block("Empty", []) == "Empty"


def test_anls_is_a_column_only_where_it_says_something_else_than_accuracy(capsys):
    print_score_table({"base": scores(0.5, anls=0.5), "adapter": scores(0.75, anls=0.755)}, "Alike")
    assert "ANLS" not in capsys.readouterr().out
    print_score_table({"base": scores(0.5, anls=0.5), "adapter": scores(0.75, anls=0.8)}, "Unlike")
    lines = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert ["accuracy", "ANLS", "n"] in lines and ["base + adapter", "75.0%", "0.8000", "40"] in lines
