"""The report in a real browser: filters, a view from its address, no request, no script from data, no fault for anybody."""

import pytest
from PIL import Image

from blip2vqa.data.examples import Example
from blip2vqa.reporting.pages.report import write_report
from blip2vqa.reporting.reports import make_report
from helpers.browser import browser, needs_browser, serious_faults

pytestmark = needs_browser
ATTACK = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    kinds = ["color", "count", "what is it"]
    examples = [
        Example(row, None, f"{row}.png", str(row), f"question {row}? {ATTACK}", ("red",), kinds[row % 3], {})
        for row in range(12)
    ]
    base = ["red" if row % 2 else "blue" for row in range(12)]
    adapter = ["red" if row % 4 else ATTACK for row in range(12)]
    report = make_report(
        "A run", examples, {"base": base, "adapter": adapter}, "adapter", before="base",
        probabilities=[row / 12 for row in range(12)], confidences=[0.5] * 12,
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


def test_people_filter_sort_and_send_views(address):
    requests, errors = [], []
    with browser() as chromium:
        page = chromium.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        assert sorted(shown(page)) == list(range(12)) and page.inner_text("output") == "12 of 12 rows"
        page.locator("[name=show]").select_option("w")
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
        assert shown(page) == [8] and page.locator("[name=show]").input_value() == "w"  # the other filters stay

        other = chromium.new_page(viewport={"width": 360, "height": 700}, color_scheme="dark")
        other.goto(view)
        assert shown(other) == [4] and other.locator("[name=show]").input_value() == "w"
        assert other.evaluate("document.documentElement.scrollWidth") <= 360
        assert serious_faults(other) == [] and serious_faults(page) == []
        assert page.title() == other.title() == "A run"  # no script of the data has run
    assert errors == [] and {url.partition("#")[0] for url in requests if not url.startswith("data:")} == {address}


def test_without_scripts_all_but_the_filters_is_there(address):
    with browser() as chromium:
        page = chromium.new_context(java_script_enabled=False).new_page()
        page.goto(address)
        assert page.locator("#answers tbody tr:visible").count() == 12
        assert page.locator("form:visible").count() == 0 and page.locator("svg:visible").count() == 2
