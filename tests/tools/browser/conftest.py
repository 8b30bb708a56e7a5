"""Tests in a browser are collected only where Playwright, axe and a Chromium are installed.

pip install --group browser, and the package `chromium` of Debian; then: python -m pytest tests/tools/browser
"""

import shutil
from importlib.util import find_spec

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
collect_ignore_glob = (
    [] if CHROMIUM and find_spec("playwright") and find_spec("axe_playwright_python") else ["test_*.py"]
)
