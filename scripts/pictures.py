"""Draw the pictures of README and docs/view.md again: python scripts/pictures.py

Searches with the embedded policy, writes the page of an evaluation, and takes pictures of it in Chromium.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from lapha.evaluation.page import run_page
from lapha.viz import write_animation, write_page
from lapha.viz.picture import TreePicture

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# file -> (address within the page, width, height, color scheme)
SHOTS = {
    "view-tree.png": ("#tab=tree", 1400, 860, "light"),
    "view-problems.png": ("#tab=problems", 1400, 640, "light"),
    "view-dark.png": ("#tab=overview", 1400, 860, "dark"),
}


def balance(picture: TreePicture) -> float:
    """How evenly a tree's answers are right and wrong: such a tree shows most."""
    answered = picture.tree.answered()
    if picture.correct is None or not len(answered):
        return 0.0
    share = float(picture.correct[answered].mean())
    return share * (1 - share) + 0.05 * bool(picture.tree.pruned.any())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "lapha", "eval", "--model", "tiny", "--limit", "60", "--simulations", "24"]
        subprocess.run([*command, "--prune-every", "8", "--modes", "single,react,value,majority,best-of-n", "--out", str(out)],
                       check=True)  # fmt: skip
        page = run_page([out], trees=60)
        pictures = [tree.picture() if callable(tree.picture) else tree.picture for tree in page.trees]
        best = max(range(len(pictures)), key=lambda index: balance(pictures[index]))
        write_animation(pictures[best], IMAGES / "search.svg", seconds=6)
        html = write_page(
            dataclasses.replace(page, subtitle="60 number walks of the embedded policy"), Path(folder) / "p.html"
        )
        take(html, best)


def take(page: Path, tree: int) -> None:
    """Pictures of the page."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for name, (fragment, width, height, scheme) in SHOTS.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            view = context.new_page()
            view.goto(f"{page.as_uri()}{fragment}" + (f"&t={tree}" if "tree" in fragment else ""))
            view.wait_for_selector("#app[data-ready]")
            view.wait_for_timeout(600)
            view.screenshot(path=str(IMAGES / name))
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
