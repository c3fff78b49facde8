"""Pages: seconds to write them, their bytes, and how fast they are in a browser.

Runs of the scripted engine, made in a temporary folder before the clock starts:

* many: 1,000 problems in all five modes, and 100 trees of 301 nodes;
* large: one tree of 10,000 nodes with long steps and latents of 1,536 numbers.

``seconds`` is of the whole command ``lapha view``, from its start to its end. In headless Chromium (drawing on the CPU):
``open_s`` until the page stands, ``filter_ms`` until a filter's rows are drawn, ``first_picture_s`` until the tree's disk is
drawn, ``frames_per_second`` of the tree redrawn at one simulation after another.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.generated_run import generate_run
from benchmarks.harness import Session
from benchmarks.records import write_records
from lapha.viz import read_page

# name -> (options of `generate_run`, most trees in the page)
_RUNS: dict[str, dict[str, tuple[dict[str, Any], int]]] = {
    "default": {
        "many": ({"problems": 1000, "simulations": 50, "hidden_size": 256}, 100),
        "large": (
            {"problems": 1, "simulations": 1667, "modes": ["value"], "hidden_size": 1536, "characters": 600, "max_expands": 8},
            1,
        ),
    },
    "smoke": {
        "many": ({"problems": 20, "simulations": 4}, 5),
        "large": ({"problems": 1, "simulations": 40, "modes": ["value"], "characters": 600}, 1),
    },
}  # fmt: skip
_FRAMES = """async () => {
  const slider = document.querySelector("#simulation");
  const last = Number(slider.max);
  const steps = Math.min(60, last);
  const began = performance.now();
  for (let step = 1; step <= steps; step++) {
    slider.value = String(Math.round((last * step) / steps));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(done));
  }
  await new Promise((done) => requestAnimationFrame(done));
  return (1000 * steps) / (performance.now() - began);
}"""
_FILTER = """async () => {
  const began = performance.now();
  const select = document.querySelector(".toolbar select");
  select.value = "wrong";
  select.dispatchEvent(new Event("change", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace, session: Session) -> None:
    for name, (options, trees) in _RUNS[args.sizes].items():
        with tempfile.TemporaryDirectory() as folder:
            _report(session, _measure(name, options, trees, Path(folder)))


def _measure(name: str, options: dict[str, Any], trees: int, folder: Path) -> dict[str, Any]:
    run = generate_run(folder / "run", **options)
    page = folder / "view.html"
    command = [sys.executable, "-m", "lapha", "view", str(folder / "run"), "--out", str(page), "--trees", str(trees)]
    begin = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - begin
    manifest = read_page(page)["manifest"]
    return {
        "name": f"lapha view, {name}",
        "shape": {key: options[key] for key in ("problems", "simulations")},
        "outcomes": len(run.records),
        "trees": len(manifest["trees"]),
        "nodes": max(tree["nodes"] for tree in manifest["trees"]),
        "seconds": seconds,
        "bytes": page.stat().st_size,
        **_in_a_browser(page),
    }


def _in_a_browser(page: Path) -> dict[str, float]:
    """Measured in Chromium, or nothing where there is none."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        print("no chromium on PATH: the browser's figures are left out", file=sys.stderr)
        return {}
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        view = browser.new_page(viewport={"width": 1400, "height": 900})
        begin = time.perf_counter()
        view.goto(f"{page.as_uri()}#tab=problems")
        view.wait_for_selector("#problems .grid-row:not(.head)")
        figures = {"open_s": time.perf_counter() - begin, "filter_ms": view.evaluate(_FILTER)}
        begin = time.perf_counter()
        view.goto(f"{page.as_uri()}?again#tab=tree")
        view.wait_for_selector("canvas[data-drawn]")
        figures["first_picture_s"] = time.perf_counter() - begin
        figures["frames_per_second"] = view.evaluate(_FRAMES)
        browser.close()
    return figures


def _report(session: Session, record: dict[str, Any]) -> None:
    full = {**session.facts, "suite": session.suite, "dtype": "text", **record}
    print(f"{session.suite} {record['name']} {record['shape']}", flush=True)
    print("  " + ", ".join(f"{key} {record[key]}" for key in record if key not in ("name", "shape")), flush=True)
    write_records([full], session.output)
