"""Pages in a real headless Chromium: the marks of such tests, and how they wait. The fixtures are in conftest.py."""

import shutil
import time
from importlib.util import find_spec

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
NEEDS_CHROMIUM = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium, such as Debian's package of that name"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright, of the dev extra"),
]


def until(page, expression):
    """Wait until a script in the page gives true; Playwright's own way needs `eval`, which the page forbids."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        time.sleep(0.05)
    raise AssertionError(f"never came true: {expression}")


def n_found(page):
    """Of the photographs that pass the filters, and after them."""
    until(page, "!document.getElementById('cards').hasAttribute('aria-busy')")
    page.wait_for_timeout(300)  # longer than a typed word waits for its next letter
    return int(page.locator("#count").inner_text().split(" of ")[0].replace(",", ""))
