"""A user's way through the demo's page in a real browser, with screenshots where they are asked for."""

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from helpers.browser import take_screenshot
from helpers.paths import ROOT

PHOTO = ROOT / "assets" / "photos" / "images"


class User:
    """Somebody who looks at one page; what goes wrong in it, and what it asks of other places, is noted."""

    def __init__(self, browser: Browser, url: str, scheme: str = "light"):
        self.page: Page = browser.new_context(color_scheme=scheme, viewport={"width": 1180, "height": 800}).new_page()
        self.scheme, self.errors, self.elsewhere = scheme, [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        own = (url, "data:", "blob:")
        self.page.on("request", lambda asked: asked.url.startswith(own) or self.elsewhere.append(asked.url))
        self.page.goto(url)
        expect(self.page.locator("#ask")).to_be_visible(timeout=30_000)

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def upload(self, path: Path) -> None:
        """Put a picture in the place of the one that is there."""
        if self.page.get_by_label("Remove Image").count():
            self.page.get_by_label("Remove Image").click()
        self.page.set_input_files("#picture input[type=file]", path)
        expect(self.page.locator("#picture img")).to_be_visible()

    def ask(self, question: str) -> None:
        self.page.locator("#question").get_by_role("textbox").fill(question)
        self.page.locator("#ask").click()

    def answers(self) -> list[list[str]]:
        """The table of answers, when it is there."""
        rows = self.page.locator("table.answers tbody tr")
        expect(rows.first).to_be_visible(timeout=30_000)
        return [row.locator("th, td").all_inner_texts() for row in rows.all()]

    def chat(self, question: str) -> None:
        self.page.locator("#chat-question").get_by_role("textbox").fill(question)
        self.page.locator("#send").click()

    def screenshot(self, name: str, whole: bool = False) -> None:
        take_screenshot(self.page, f"{name}-{self.scheme}", whole)
