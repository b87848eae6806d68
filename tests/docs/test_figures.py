"""Figures in README and docs are those of the measurements, and a figure on two pages is the same on both."""

import difflib
import re

import pytest

from helpers.doc_claims import CLAIMS, DOCS, MEASUREMENTS, Figure, measured, rendered
from helpers.doc_pages import PAGES, README, blocks, page_name

OPT = ("training-opt-2.7b-01", "training-opt-2.7b-04", "training-opt-2.7b-10")


def text_of(page: str) -> str:
    """A page of docs/, its lines joined where they are wrapped within a sentence."""
    return re.sub(r"(?<!\n)\n(?![\n|\-`#])", " ", (DOCS / page).read_text())


def check(page: str, text: str, where: str) -> None:
    """Fail with the nearest line of the page where `text` is not on it."""
    found = text_of(page)
    nearest = difflib.get_close_matches(text, found.splitlines(), n=1, cutoff=0.3)
    assert text in found, f"docs/{page} does not hold what {where} says:\n  {text}\nnearest: {nearest}"


@pytest.mark.parametrize("page", CLAIMS)
def test_figures_are_those_of_the_measurements(page):
    for name, text in rendered(page):
        check(page, text, f"docs/measurements/{name}.json")


def test_every_measurement_is_reported():
    assert {path.stem for path in MEASUREMENTS.glob("*.json")} == {
        name for claims in CLAIMS.values() for name in claims
    }


def test_every_headline_figure_is_held():
    """A speed-up or ratio in bold stands in a line that is compared with a measurement."""
    held = {line for _, text in rendered("performance.md") for line in text.splitlines()}
    bold = [line for line in (DOCS / "performance.md").read_text().splitlines() if re.search(r"\*\*[\d.]+", line)]
    assert len(bold) >= 12 and [line for line in bold if line not in held] == []


def test_a_changed_measurement_is_noticed(monkeypatch):
    monkeypatch.setitem(measured("training-opt-2.7b-04"), "speedup", Figure(4.4))
    with pytest.raises(AssertionError, match=r"4\.4 ×"):
        test_figures_are_those_of_the_measurements("performance.md")


def test_headlines_of_the_readme():
    readme = " ".join(README.read_text().split())
    speedups = sorted(measured(name)["speedup"] for name in OPT)
    memory = sorted(measured(name)["memory_ratio"] for name in OPT)
    assert f"{speedups[0]:.1f} to {speedups[-1]:.1f} times faster" in readme
    assert f"{memory[0]:.2f} to {memory[-1]:.2f} of the memory" in readme
    models = (DOCS / "models.md").read_text()
    whole, packed = re.search(r"`Salesforce/blip2-opt-2.7b` \| ([\d.]+) / ([\d.]+) GiB", models).groups()
    assert f"{whole} GiB for its weights in bfloat16 and {packed} GiB in 4 bits" in readme
    vilt = re.search(r"`dandelin/vilt-b32-mlm` \| ([\d.]+) /", models)[1]
    assert f"ViLT needs {vilt} GiB" in readme


@pytest.fixture(scope="module")
def quickstart() -> dict[str, tuple[str, str]]:
    """Row of the README's output → (accuracy, BERTScore), as printed."""
    rows = re.findall(r"^│ (\S.*?) +│ +([\d.]+%) │ +([\d.]+|-) │ \d+ │$", README.read_text(), flags=re.MULTILINE)
    assert len(rows) == 4
    return {name: (accuracy, bertscore) for name, accuracy, bertscore in rows}


def test_quick_start_is_the_same_on_every_page(quickstart):
    base, adapter = quickstart["base model"], quickstart["base + adapter"]
    blind, swapped = quickstart["blind baseline (no image)"][0], quickstart["adapter, images swapped"][0]
    check("results.md", f"| base | {base[0]} | {float(base[1]):.3f} |", "README")
    check("results.md", f"| base + adapter | {adapter[0]} | {float(adapter[1]):.3f} |", "README")
    check("results.md", f"| blind | {blind} | |", "README")
    check("results.md", f"| swapped | {swapped} | |", "README")
    owed = float(re.search(r"and ([\d.]+) points of its accuracy are owed to the picture", README.read_text())[1])
    assert abs(owed - (float(adapter[0][:-1]) - float(swapped[:-1]))) < 0.15  # both were rounded


@pytest.fixture(scope="module")
def drawings() -> dict[str, str]:
    """Row of the table of results.md about the drawn scenes → accuracy."""
    section = (DOCS / "results.md").read_text().partition("## The drawn scenes")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (\S.*?) \| ([\d.]+%) \|", section, flags=re.MULTILINE))


def test_the_adapter_of_the_drawings_is_the_one_that_was_moved(drawings):
    scores = measured("exchange-scores")["moves"]["exact, to other eyes"]["accuracy"]
    assert f"{scores['source adapter']:.1%}" == drawings["base + adapter"]
    assert f"{scores['source base']:.1%}" == drawings["base"]
    check("exchange.md", f"adapter ({drawings['base + adapter']} on its own base", "results.md")
    known = f"blind baseline of training](scores.md#two-baselines-without-images), which scores {drawings['blind']}"
    check("exchange.md", known, "results.md")
    check("scores.md", f"the blind baseline {drawings['blind']}.", "results.md")
    # The baseline of that comparison knows the validation table, the other the training table: two figures, two names.
    other = f"{scores['blind (no image)']:.1%}"
    assert other != drawings["blind"]
    check("scores.md", f"577 validation questions of the drawings it scores {other}", "exchange-scores.json")
    for page in PAGES:
        assert not re.search(rf"blind(?! baseline of training)[^.]{{0,12}}{re.escape(other)}", page.read_text()), (
            page_name(page)
        )


def test_output_in_the_readme_is_that_of_the_page():
    """README shows a part of what docs/finetuning.md shows whole."""
    whole = (DOCS / "finetuning.md").read_text().splitlines()
    output = next(block for block in blocks(README) if "581" in block)
    assert [line for line in output.splitlines() if line not in whole] == []


def test_catalogue_is_the_same_in_output_and_table():
    page = "data-generation.md"
    text = (DOCS / page).read_text()
    questions, each = re.search(r"^  questions: +([\d,]+), ([\d.]+) a picture$", text, re.MULTILINE).groups()
    after, before, limit = re.search(r"after ([\d.]+%), before ([\d.]+%), limit ([\d.]+)%", text).groups()
    pictures = re.search(r"^  pictures: +([\d,]+) of", text, re.MULTILINE)[1]
    check(page, f"| questions | {questions}: {each} for each of these", "the output")
    check(page, f"| {before}, {after} (limit {float(limit):.0f}%) |", "the output")
    check(page, f"| pictures asked about | {pictures} (", "the output")
