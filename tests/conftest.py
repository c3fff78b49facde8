"""What tests of several packages share: a browser to look at pages, and the benchmarks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples on every run and machine, however slow: a failure is of the change, not of the dice or the clock
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

sys.path.insert(0, str(Path(__file__).parents[1]))  # some tests use the benchmarks' code
# names of a system's browser; the first that is found is used
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def chromium():
    """A headless browser for one module: while it is open, its library keeps an event loop running in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("no chromium or chrome on PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, tmp_path):
    """Function: (HTML text, options) -> an open page. Fails at its end if a script failed or a request left the page."""
    unexpected: list[str] = []
    contexts = []

    def run(
        html: str,
        fragment: str = "",
        *,
        width: int = 1400,
        height: int = 900,
        scheme: str = "light",
        problems: list[str] = unexpected,
    ):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        file = tmp_path / f"page{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")
        page.on("request", lambda r: None if r.url.startswith((file.as_uri(), "blob:")) else problems.append(r.url))
        page.goto(file.as_uri() + fragment)
        page.wait_for_selector("#app[data-ready]")
        return page

    yield run
    for context in contexts:
        context.close()
    assert unexpected == []
