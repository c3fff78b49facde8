"""What tests of several packages share: a browser to look at pages, and the benchmarks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # some tests use the benchmarks' code


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """Function: HTML text -> the DOM after its scripts have run, from a real headless browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium or chrome on PATH")

    def run(page: str) -> str:
        folder: Path = tmp_path_factory.mktemp("page")
        (folder / "page.html").write_text(page, encoding="utf-8")
        flags = (  # noqa: SIM905
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
        ).split()
        result = subprocess.run(
            [browser, *flags, f"--user-data-dir={folder / 'profile'}", (folder / "page.html").as_uri()],
            capture_output=True, text=True, timeout=180, check=True,
        )  # fmt: skip
        return result.stdout

    return run
