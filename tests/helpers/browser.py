"""Debian's Chromium, driven by Playwright; tests that need it are skipped where it is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


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
