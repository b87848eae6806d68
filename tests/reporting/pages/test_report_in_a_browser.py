"""The pages in a real browser: filters, a view from its address, no request, no script from data, no fault for anybody."""

import os
from pathlib import Path

import pytest
from PIL import Image

from blip2vqa.data.examples import Example
from blip2vqa.data.images import ImageSource
from blip2vqa.evaluation.compare import SystemRun, compare
from blip2vqa.generate.report.contact_sheet import write_contact_sheet
from blip2vqa.generate.rows import Item, Question
from blip2vqa.reporting.pages.report import write_report
from blip2vqa.reporting.pages.sheet import write_sheet
from blip2vqa.reporting.reports import make_report, report_systems
from helpers.browser import browser, faults_for_anybody, needs_browser, take_screenshot
from helpers.paths import ROOT

pytestmark = needs_browser
PHOTO = ROOT / "assets" / "photos" / "images" / "49264fde.jpg"
REPORT = os.environ.get("BLIP2VQA_SCREENSHOT_REPORT")
"""A report to take the screenshots of, in place of the test's own."""
ATTACK = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    kinds = ["color", "count", "what is it"]
    examples = [
        Example(row, None, f"{row}.png", str(row), f"question {row}? {ATTACK}", ("red",), kinds[row % 3], {})
        for row in range(12)
    ]
    base = ["red" if row % 2 or row in (0, 4) else "blue" for row in range(12)]
    adapter = ["red" if row % 4 else ATTACK for row in range(12)]
    report = make_report(
        "A run", examples, {"base": base, "adapter": adapter}, "adapter", before="base",
        probabilities=[0.0, *(0.8 + row / 100 for row in range(1, 12))], confidences=[0.5] * 12,
        history=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "eval_loss": 1.5}],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, report, lambda example: Image.new("RGB", (40, 30), "teal"))
    return path.as_uri()


def shown(page) -> list[int]:
    """The rows that can be seen, in their order on the page."""
    return page.eval_on_selector_all(
        "#answers tbody tr", "rows => rows.filter(row => row.offsetParent !== null).map(row => Number(row.dataset.n))"
    )


def ticked(page) -> list[str]:
    """The letters of the kinds of rows that are shown alone."""
    return page.eval_on_selector_all("[name=show]:checked", "boxes => boxes.map(box => box.value)")


def test_people_filter_sort_and_send_views(address):
    requests, errors = [], []
    with browser() as chromium:
        page = chromium.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        assert sorted(shown(page)) == list(range(12)) and page.inner_text("output") == "12 of 12 rows"
        page.get_by_label("wrong (3)", exact=True).check()
        assert sorted(shown(page)) == [0, 4, 8]
        page.locator("[name=type]").select_option("count")
        assert shown(page) == [4]
        page.locator("[name=type]").select_option("")
        page.locator("[name=sort]").select_option("down")
        assert shown(page) == [8, 4, 0] and page.url.endswith("#show=w&sort=down")
        page.locator("[name=sort]").select_option("up")
        assert shown(page) == [0, 4, 8]  # a probability of 0 is the least, not none
        page.locator("[name=sort]").select_option("down")
        page.locator("[name=find]").fill("question 4?")
        assert shown(page) == [4]
        view = page.url
        page.locator("[name=find]").fill("")
        page.get_by_role("link", name="what is it").click()
        assert shown(page) == [8] and ticked(page) == ["w"]  # the other filters stay

        other = chromium.new_page(viewport={"width": 360, "height": 700}, color_scheme="dark")
        other.goto(view)
        assert shown(other) == [4] and ticked(other) == ["w"]
        assert page.title() == other.title() == "A run"  # no script of the data has run
    assert errors == [] and {url.partition("#")[0] for url in requests if not url.startswith("data:")} == {address}


def test_kinds_of_rows_combine_and_stand_in_the_address(address):
    with browser() as chromium:
        page = chromium.new_page()
        page.goto(address)
        page.get_by_label("sure and wrong").check()
        assert sorted(shown(page)) == [4, 8] and page.url.endswith("#show=s")
        page.get_by_label("changed for the worse").check()
        assert shown(page) == [4] and page.url.endswith("#show=sc") and page.inner_text("output") == "1 of 12 rows"
        other = chromium.new_page()
        other.goto(page.url)
        assert shown(other) == [4] and ticked(other) == ["s", "c"]
        for kinds, rows in {
            "c": [0, 4],
            "bc": [0, 2, 4, 6, 10],
            "rw": list(range(12)),
            "rb": [2, 6, 10],
            "rs": [],
        }.items():
            other.goto(f"{address}#show={kinds}")
            assert sorted(shown(other)) == rows, kinds


def test_filters_work_by_keyboard_alone(address):
    with browser() as chromium:
        page = chromium.new_page()
        page.goto(address)
        page.keyboard.press("Tab")

        def go_to(place: str, key: str = "Tab") -> None:
            for _ in range(30):
                if page.evaluate("place => document.activeElement.matches(place)", place):
                    break
                page.keyboard.press(key)
            assert (
                page.locator(f"{place}:focus-visible").evaluate("one => getComputedStyle(one).outlineStyle") != "none"
            )

        go_to("[value=w]")
        page.keyboard.press("Space")
        go_to("[value=c]")
        page.keyboard.press("Space")
        assert sorted(shown(page)) == [0, 4] and page.inner_text("output[aria-live]") == "2 of 12 rows"
        go_to("[name=type]")
        page.keyboard.type("cou")
        assert shown(page) == [4]
        page.keyboard.press("Home")
        go_to("[name=find]")
        page.keyboard.type("question 0?")
        assert shown(page) == [0]
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        go_to("[name=sort]")
        page.keyboard.type("most")
        assert shown(page) == [4, 0] and page.url.endswith("#show=wc&sort=down")
        go_to("[value=w]", "Shift+Tab")
        page.keyboard.press("Space")
        assert shown(page) == [4, 0] and ticked(page) == ["c"]  # all that got worse are wrong


@pytest.fixture
def page_of(address, tmp_path):
    """Write one of the pages that people look at, and return its address."""
    questions = ["What color is it?", "What is it?", "What is it made of?"]
    examples = [
        Example(
            row, ImageSource(PHOTO.name, path=PHOTO), PHOTO.name, str(row), questions[row % 3], ("red",), "color", {}
        )
        for row in range(12)
    ]
    long = "a very long name of a system, " * 4 + "x" * 100

    def page_of(name: str) -> str:
        path = tmp_path / "page.html"
        with Image.open(PHOTO) as photo:
            if name == "report":
                return Path(REPORT).resolve().as_uri() if REPORT else address
            if name == "systems":
                answers = {"one": ["red"] * 6 + ["blue"] * 6, long: ["red"] * 12, "three": [long] * 12}
                runs = [SystemRun(system, said, "base", None, "none", "{question}") for system, said in answers.items()]
                report_systems(path, "Systems", examples, runs, compare(examples, runs, resamples=20))
            elif name == "captions":
                rows = [("1.jpg", photo, {"plain": "a shoe", long: long}, None), (long, None, {}, "cannot be decoded")]
                write_sheet(path, rows, [("plain", ""), (long, "an adapter")])
            else:
                item = Item(PHOTO.name, PHOTO, "", "B0", "shoe", long, {})
                asked = [Question(item, one, "red", "color", "templates") for one in questions]
                write_contact_sheet(path, [(item, photo, asked), (item, None, [])], "Questions", "Drawn with seed 3.")
        return path.as_uri()

    return page_of


@pytest.mark.parametrize("name", ["report", "systems", "captions", "questions"])
def test_no_page_has_a_serious_fault_for_anybody(page_of, name):
    with browser() as chromium:
        assert faults_for_anybody(chromium, page_of(name)) == []


def test_pictures_of_the_report_have_names_and_the_docs_show_them(page_of):
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1180, "height": 800})
        page.goto(page_of("report"))
        take_screenshot(page, "report")
        page.goto(f"{page.url}#show=pb&sort=down")
        take_screenshot(page, "report-rows")
        cell = page.locator("#answers tbody tr:visible td").first
        assert cell.get_by_role("img", name=cell.inner_text().strip(), exact=True).is_visible()


def test_without_scripts_all_but_the_filters_is_there(address):
    with browser() as chromium:
        page = chromium.new_context(java_script_enabled=False).new_page()
        page.goto(address)
        assert page.locator("#answers tbody tr:visible").count() == 12
        assert page.locator("form:visible").count() == 0 and page.locator("svg:visible").count() == 2
