"""A Chromium that tests drive: the one of ``DEPLOYC_CHROMIUM``, or one on the PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["CHROMIUM", "chromium"]

CHROMIUM = "DEPLOYC_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--no-sandbox",  # containers seldom allow one, and only the project's own page is opened
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",  # this and what follows: nothing but the page is asked for
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Generator[Any, None, None]:
    """A headless Chromium, as Playwright's ``Browser``; skips where there is none, and says why.

    Its profile is a new folder, which Playwright makes and removes.
    """
    reason = "playwright is not installed: pip install playwright"
    playwright: Any = pytest.importorskip("playwright.sync_api", reason=reason)
    path = os.environ.get(CHROMIUM) or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium: {CHROMIUM} is not set, and none of {', '.join(NAMES)} is there")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()
