"""The report holds what it is to show, of every kind of row, escaped, and in at most 5 MB."""

import re
from dataclasses import replace

import pytest
from PIL import Image

from blip2vqa.data.examples import Example
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.reporting.pages import report as report_module
from blip2vqa.reporting.pages.report import Report, write_report
from blip2vqa.reporting.reports import make_report, report_systems
from helpers.html_page import Page

NASTY = '"><script>alert("1")</script><img src=http://example.org/x onerror=x> & } </style>'


def example(row: int, question: str, answer: str, kind: str = "color") -> Example:
    return Example(row, None, f"{row // 2}.png", f"digest {row // 2}", question, (answer,), kind, {})


EXAMPLES = [
    example(0, "color of the cup?", "red"), example(1, "color of the lid?", "blue"), example(2, "how many?", "two", "count"),
    example(3, "color of the mug?", "green"), example(4, "how many?", "one", "count"), example(5, "color?", "red"),
]  # fmt: skip
ANSWERS = {
    "base model": ["red", "red", "one", "green", "two", "blue"],
    "base + adapter": ["red", "blue", "two", "red", "two", "red"],
    "adapter, images swapped": ["blue", "blue", "two", "red", "one", "blue"],
}
HISTORY = [
    {"step": 2, "loss": 1.5}, {"step": 4, "loss": 1.0}, {"step": 4, "eval_loss": 1.25, "eval_accuracy": 0.5}, {"step": 4},
]  # fmt: skip


@pytest.fixture
def made() -> Report:
    sure = [0.9, 0.7, 0.6, 0.95, 0.3, 0.8]
    return make_report(
        "Run", EXAMPLES, ANSWERS, "base + adapter", before="base model", swapped="adapter, images swapped",
        confidences=sure, probabilities=sure, history=HISTORY,
    )  # fmt: skip


@pytest.fixture
def written(tmp_path):
    def written(report, open_picture=lambda example: Image.new("RGB", (300, 200), "teal")) -> tuple[str, Page]:
        path = tmp_path / "report.html"
        write_report(path, report, open_picture)
        text = path.read_text(encoding="utf-8")
        return text, Page(text)

    return written


def rows_of(page: Page) -> dict[int, set[str]]:
    """Row → the letters of its kinds."""
    return {int(one["data-n"]): set(one.get("data-k", "")) for one in page.all("tr") if "data-n" in one}


def test_each_row_is_of_the_kinds_that_it_is(made, written):
    _, page = written(made)
    assert rows_of(page) == {
        0: set("rp"), 1: set("rb"), 2: set("rb"), 3: set("wsc"), 4: set("w"), 5: set("rbp"),
    }  # fmt: skip


def test_it_begins_with_the_verdict_and_shows_all_parts(made, written):
    text, page = written(made)
    order = [
        "Run",
        made.verdict,
        "Scores",
        "Training",
        "Accuracy by question type",
        "Wrong answers",
        "Calibration",
        "Rows",
    ]
    places = [text.index(f">{part}") for part in order]
    assert places == sorted(places)
    assert made.verdict.startswith("66.7% of 6 answers are right: better than the blind baseline")
    assert "66.7% (" in page.said  # with its interval
    assert re.search(r"green\s*red\s*1\b", page.said)  # the truth, the answer, how often
    assert len(page.all("svg")) == 2 and "currentColor" in text and "#010203" not in text
    assert re.search(r"4\s*1\s*4\s*1\.25\s*0\.5", page.said)  # the numbers of the curve


def test_each_picture_stands_once_and_its_rows_name_it(made, written):
    text, page = written(made, lambda example: None if example.image_name == "1.png" else Image.new("RGB", (300, 200)))
    assert text.count("data:image/jpeg") == 2
    assert sorted(one["class"] for one in page.all("i")) == [
        "p p1",
        "p p1",
        "p p2",
        "p p2",
    ]  # none for the rows of 1.png
    assert "1 picture was not found" in page.said and len(rows_of(page)) == 6


def test_it_loads_nothing_and_runs_no_script_but_its_own(made, written):
    text, page = written(made)
    (policy,) = [one["content"] for one in page.all("meta") if "content" in one and "default-src" in one["content"]]
    assert policy.startswith("default-src 'none'; img-src data:") and "script-src 'sha256-" in policy
    assert len(page.all("script")) == 1 and "http" not in text.replace("http-equiv", "")
    assert not {key for _, attributes in page.tags for key in attributes if key.startswith("on")}


def test_what_tables_and_models_say_is_escaped(written):
    examples = [Example(row, None, NASTY, str(row), NASTY, (NASTY,), NASTY, {}) for row in range(2)]
    made = make_report(NASTY, examples, {NASTY: ["a", NASTY], "other": [NASTY, "b"]}, NASTY, before="other")
    text, page = written(made)
    assert (
        len(page.all("script")) == 1
        and not page.all("img")
        and "alert(" not in text.split("<body>")[0].split("<style>")[1]
    )
    assert page.said.count(NASTY) >= 8
    assert {name for name, _ in page.tags} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "p", "main", "section", "h2", "div", "table", "thead",
        "tbody", "tr", "th", "td", "small", "a", "form", "label", "select", "option", "input", "output", "i",
        "script", "header", "button", "fieldset", "legend",
    }  # fmt: skip


def test_a_large_table_is_a_sample_that_holds_all_kinds(made, written, monkeypatch):
    many = [example(row, f"question {row}?", "red" if row % 50 else "blue", "color") for row in range(300)]
    answers = {"base model": ["red"] * 300, "base + adapter": ["red"] * 300}
    made = make_report("Many", many, answers, "base + adapter", before="base model")
    monkeypatch.setattr(report_module, "MOST_ROWS", 20)
    text, page = written(made)
    kinds = [kind for row in rows_of(page).values() for kind in row]
    assert len(rows_of(page)) == 20 and kinds.count("w") == 6  # all of the rare ones, before more of the others
    assert "20 of 300 rows" in page.said
    monkeypatch.setattr(report_module, "MOST_ROWS", 300)
    monkeypatch.setattr(report_module, "MOST_BYTES", 100_000)
    monkeypatch.setattr(report_module, "FOR_PICTURES", 20_000)
    text, page = written(made, lambda example: Image.effect_noise((192, 192), 80))
    assert 60_000 < len(text.encode()) <= 100_000 and len(rows_of(page)) == 300
    assert 0 < len(page.all("i")) < 300


def test_a_report_that_pictures_fill_stays_in_its_bytes_however_many_rows_show_them(written, monkeypatch):
    examples = [Example(row, None, "a.png", str(row % 3), "what?", ("red",), "what", {}) for row in range(300)]
    made = make_report("Few pictures", examples, {"answer": ["red"] * 300}, "answer")
    size = len(written(made)[0].encode())
    monkeypatch.setattr(report_module, "MOST_BYTES", size - 1)
    monkeypatch.setattr(report_module, "FOR_PICTURES", 0)
    text, page = written(made)
    assert len(text.encode()) < size and len(page.all("i")) == 200


def test_the_page_of_systems_opens_with_one_sentence(tmp_path):
    answers = {"one": ["red"] * 6, "two": ["red", "blue", "two", "green", "two", "red"]}
    runs = [SystemRun(name, said, "base", None, "none", "{question}") for name, said in answers.items()]
    examples = [replace(one, image=b"none") for one in EXAMPLES]
    report_systems(tmp_path / "page.html", "Systems", examples, runs, compare(examples, runs, resamples=20))
    said = Page((tmp_path / "page.html").read_text(encoding="utf-8")).inside("p")[0]
    assert said == (
        "No system is right more often than two, and its lead on one is within noise; 83.3% of 6 answers are right: better "
        "than the blind baseline."
    )


def test_captions_are_shown_and_not_judged(written):
    examples = [
        Example(row, None, f"{row}.png", str(row), "", (f"a cup, number {row}", "one cup"), "caption", {})
        for row in range(3)
    ]
    said = {"base model": ["a dog"] * 3, "base + adapter": ["a cup, number 0", "one cup", "a lid"]}
    made = make_report("Captions", examples, said, "base + adapter", captions=True, before="base model")
    _, page = written(made)
    assert (
        set().union(*rows_of(page).values()) == set() and "CIDEr" in page.said and not page.all("td")[-2].get("class")
    )
    assert "a cup, number 0" in page.said and made.verdict.startswith("CIDEr ")


def test_rows_without_a_truth_and_those_left_out_are_neither_right_nor_wrong(written):
    examples = [example(row, f"question {row}?", "red" if row < 8 else "") for row in range(10)]
    said = ["red", "blue"] * 4 + ["red", "blue"]
    sure = [0.9 if row % 2 else 0.6 for row in range(10)]
    made = make_report(
        "Run", examples, {"answer": ["" if row < 2 else text for row, text in enumerate(said)]}, "answer",
        confidences=sure, probabilities=[None, *sure[1:]], left_out=[row < 2 for row in range(10)],
    )  # fmt: skip
    _, page = written(made)
    rows = rows_of(page)
    assert [rows[row] for row in (0, 1, 2, 3, 8, 9)] == [set("u"), set("u"), set("r"), set("ws"), set(), set()]
    assert made.verdict.startswith("80.0% of 10 questions were answered, and 50.0% of these answers are right")
    assert "of these, the sure answers" in page.said and "(nothing)" not in page.said
    assert "(expected calibration error, 6 answers)" in page.said


def test_many_types_are_cut_to_the_commonest(written):
    examples = [example(row, "what?", "red", f"type {row % 120}" if row < 240 else "common") for row in range(300)]
    _, page = written(make_report("Many", examples, {"answer": ["red"] * 300}, "answer"))
    assert (
        len(page.all("option")) < 70
        and "Types of questions: the 50 commonest" in page.said
        and len(rows_of(page)) == 300
    )
