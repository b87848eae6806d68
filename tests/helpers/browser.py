"""Debian's Chromium, driven by Playwright; tests that need it are skipped where it is not installed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")
SCREENSHOTS = os.environ.get("BLIP2VQA_SCREENSHOTS")
"""Folder that screenshots of pages are written into; None: none are."""


@contextmanager
def browser() -> Iterator:
    """Start Chromium, and end it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


def serious_faults(page) -> list[str]:
    """List what axe-core finds wrong for people who use a keyboard or a screen reader, as far as it is serious."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    bad = [(one["id"], one["nodes"][0]) for one in found if one["impact"] in ("serious", "critical")]
    return [f"{name}: {node['html'][:200]}: {node['failureSummary']}" for name, node in bad]


def faults_for_anybody(chromium, address: str) -> list[str]:
    """List serious faults of a page in dark and light, on a wide screen and a narrow one, which must not scroll sideways."""
    found = []
    for scheme, width in product(("light", "dark"), (1180, 360)):
        page = chromium.new_page(color_scheme=scheme, viewport={"width": width, "height": 700})
        page.goto(address)
        scrolled = page.evaluate("document.documentElement.scrollWidth")
        faults = serious_faults(page) + ([f"{scrolled} pixels wide"] if scrolled > width else [])
        found += [f"{scheme}, {width}: {fault}" for fault in faults]
        page.close()
    return found


def take_screenshot(page, name: str, whole: bool = False) -> None:
    """Write a picture of the page where screenshots are asked for."""
    if SCREENSHOTS:
        page.wait_for_timeout(400)  # until what fades is gone
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=whole)
