"""Skipped, with its reason, where no browser is; the other files of this folder are then not collected."""

import pytest

from tests.tools.browser.conftest import MISSING

REMEDY = "pip install --group browser; apt-get install chromium"


@pytest.mark.skipif(bool(MISSING), reason=f"tests of the book in a browser need {' and '.join(MISSING)}: {REMEDY}")
def test_a_browser_is_here(browser):
    assert int(browser.version.split(".")[0]) >= 100, "MathML is shown since Chromium 109"
