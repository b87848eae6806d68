"""What exchange.py prints: a store, a check, moves, and reports of what was written."""

import sys

import pytest

from blip2vqa.exchange.commands import COMMANDS, EXIT_CODES


def printed(capsys, command: str, result) -> str:
    COMMANDS[command].show(result)
    output = capsys.readouterr().out
    assert "\x1b" not in output
    return output


@pytest.fixture(autouse=True)
def a_log_file(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)  # which tells rich to write as if to a terminal
    monkeypatch.setenv("COLUMNS", "100")


def entry(name: str, **known) -> dict:
    unknown = dict.fromkeys(("task", "base", "rank", "roles", "score", "size", "date", "problem"))
    return {"name": name, **unknown, "size": 1_500_000, "date": "2026-01-02T03:04:05+00:00"} | known


def rows(output: str) -> dict[str, list[str]]:
    """First cell → the others, of a table's rows that fit one line; those broken into several are joined."""
    found, last = {}, None
    for line in output.splitlines():
        if not line.startswith("│"):
            continue
        first, *rest = (cell.strip() for cell in line.strip("│").split("│"))
        if first:
            found[first] = last = rest
        else:
            last[:] = [f"{cell} {more}".strip() for cell, more in zip(last, rest, strict=True)]
    return found


def test_a_store(capsys):
    accuracy = {"metric": "accuracy", "adapter": 0.625, "blind": 0.4}
    output = printed(
        capsys,
        "list",
        [
            entry("a", task="vqa", base="me/opt", rank=16, roles=["q", "v"], score=accuracy),
            entry(
                "[bold]b", base="/data/bases/tiny", rank=4, score={"metric": "cider", "adapter": 1.234, "blind": None}
            ),
            entry("eyes", task="caption", rank=8, roles=["q", "projection", "qformer q", "qformer v"]),
        ],
    )
    assert rows(output) == {
        "a": ["vqa", "me/opt", "16", "q v", "62.5%", "40.0%", "1.5", "2026-01-02"],
        "[bold]b": ["-", "tiny", "4", "-", "CIDEr 1.23", "-", "1.5", "2026-01-02"],
        "eyes": ["caption", "-", "8", "q projection qformer q v", "-", "-", "1.5", "2026-01-02"],
    }
    assert all(len(line) <= 100 for line in output.splitlines())


def test_a_store_with_what_is_not_usable(capsys):
    nothing = {"size": None, "date": None}
    broken = entry("b", **nothing, problem="adapter b: adapter_config.json is not readable as JSON: " + "x" * 90)
    output = printed(capsys, "list", [entry("a", rank=1), broken])
    assert list(rows(output)) == ["a"]
    assert output.splitlines()[-1] == f"not usable: {broken['problem']}"  # whole, however long
    assert printed(capsys, "list", [broken]) == f"not usable: {broken['problem']}\n"


def test_a_store_that_is_empty_says_how_to_fill_it(capsys, monkeypatch):
    assert "python exchange.py add ADAPTER" in printed(capsys, "list", [])
    monkeypatch.setattr(sys, "argv", ["/usr/bin/blip2vqa", "exchange", "list"])
    assert "with: blip2vqa exchange add ADAPTER" in printed(capsys, "list", [])


def checked(verdict: str, **found) -> dict:
    return {"adapter": "a", "base": "me/opt", "verdict": verdict, "reasons": [], "move": None, "parts": {}} | found


def test_a_check(capsys):
    parts = {"vision_model": "same", "language_model": "quantized-4bit"}
    output = printed(capsys, "check", checked("ok", parts=parts, reasons=["one reason", "and another"]))
    assert output == (
        "ok\n"
        "  adapter:  a\n"
        "  base:     me/opt\n"
        "  parts:    vision_model same, language_model quantized-4bit\n"
        "  because:  one reason\n"
        "            and another\n"
    )
    assert printed(capsys, "check", checked("incompatible")) == "incompatible\n  adapter:  a\n  base:     me/opt\n"
    assert EXIT_CODES == {"ok": 0, "convertible": 3, "incompatible": 1}


@pytest.mark.parametrize(
    ("move", "how"), [("exact", "exactly"), ("copy", "as an initialisation"), (None, "as an init")]
)
def test_a_convertible_one_says_how_to_move_it(capsys, move, how):
    output = printed(capsys, "check", checked("convertible", move=move))
    assert f"move it:  python exchange.py transfer a me/opt --output NEW  ({how}" in output


def moved(state: str = "initialisation", measured: dict | None = None, **more) -> dict:
    known = {"method": "subspace", "state": state, "reasons": ["it fits"], "output": "runs/new", "measured": measured}
    return known | more


def test_a_move_that_was_not_measured_is_not_called_more_than_a_start(capsys):
    output = printed(capsys, "transfer", moved())
    assert output == (
        "Moved\n"
        "  method:   subspace\n"
        "  state:    initialisation: a start for training; nothing shows that it is worth anything here\n"
        "  because:  it fits\n"
        "  written:  runs/new\n"
    )
    assert "state:    exact: the same weights lie under it" in printed(capsys, "transfer", moved("exact"))


def system(name: str, accuracy: float) -> dict:
    nothing = ("interval", "seconds_per_question", "peak_memory", "parameters", "trained_parameters")
    return {"name": name, "accuracy": accuracy, "empty_predictions": 0, **dict.fromkeys(nothing)}


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ({"moved": 0.125, "direct": None, "recovered": None}, "+12.5 points (moved adapter less target base)"),
        (
            {"moved": 0.125, "direct": 0.25, "recovered": 0.5},
            "+12.5 points (moved adapter less target base); trained directly +25.0; recovered 50%",
        ),
        (
            {"moved": -0.05, "direct": -0.1, "recovered": None},
            "-5.0 points (moved adapter less target base); trained directly -10.0",
        ),
    ],
)
def test_a_move_that_was_measured(capsys, gain, said):
    systems = [system("target base", 0.25), system("moved adapter", 0.375)]
    measured = {"systems": systems, "n": 8, "images": 4, "notes": ["From 4 images."], "gain": gain}
    output = printed(capsys, "transfer", moved("measured", measured))
    assert rows(output) == {"target base": ["25.0%"], "moved adapter": ["37.5%"]}
    assert "From 4 images." in output and "measured: better than its new base" in output
    assert output.splitlines()[-1] == f"  gain:     {said}"


def test_a_swap_says_of_each_what_became_of_it(capsys):
    stays = {
        "method": None,
        "state": None,
        "reasons": ["not by exact", "not by copy"],
        "output": None,
        "measured": None,
    }
    output = printed(capsys, "swap", {"a": moved("exact", method="exact"), "b": stays})
    first, second = output.split("b:\n")
    assert first.startswith("a:\nMoved\n  method:   exact\n")
    assert second == "Not moved\n  because:  not by exact\n            not by copy\n"


def test_a_report(capsys):
    report = {
        "output": "c", "of": [{"name": "a"}], "rank": 4, "relative_error": 0.000123456, "worst_module": {"name": "x"},
        "notes": ["one", "two"],
    }  # fmt: skip
    assert printed(capsys, "merge", report) == (
        "Written\n"
        "  output:          c\n"
        "  rank:            4\n"
        "  relative error:  0.000123\n"
        "  note:            one\n"
        "  note:            two\n"
    )


def test_what_is_a_place_is_printed_as_it_is(capsys):
    assert printed(capsys, "add", "/store/a") == "/store/a\n"
    assert printed(capsys, "push", "https://huggingface.co/me/a") == "https://huggingface.co/me/a\n"
    assert printed(capsys, "remove", None) == "Removed\n"
