"""A headless Chromium for the tests of this folder; where one is missing, they are skipped in one test.

pip install --group browser, and the package `chromium` of Debian; then: python -m pytest tests/tools/browser
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FOUND = {
    "Playwright": find_spec("playwright"),
    "axe-playwright-python": find_spec("axe_playwright_python"),
    "Chromium": CHROMIUM,
}
MISSING = [name for name, found in FOUND.items() if not found]
ASKS = "test_a_browser_is_here.py"  # the one file that is collected in any case; it says what is missing
collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py") if MISSING and path.name != ASKS]


@pytest.fixture(scope="session")
def browser():
    """A Chromium without window, started once."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except Error as error:
            chromium, log = None, error.message.splitlines()
        if chromium is None:
            said = [line for line in log if "[err]" in line] or log[:1]
            pytest.fail("\n".join([f"{CHROMIUM} does not start as a browser:", *said]), pytrace=False)
        yield chromium
        chromium.close()
