"""The page's data: what goes in comes out, text never becomes markup, the same page gives the same bytes."""

import gzip
import hashlib
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.viz.conftest import HOSTILE

from lapha.geometry import PolarPoints
from lapha.tree import SearchTree
from lapha.viz import (
    Curve,
    Page,
    PageRun,
    PageTree,
    Section,
    Table,
    TreePicture,
    learning_curve,
    read_page,
    reliability_diagram,
    render_page,
    tree_data,
    write_tree_page,
)

ROOT = Path(__file__).parents[2]


def blobs(html: str) -> dict:
    """The page's data, read without the library's own reader."""
    found = re.findall(r'<script type="text/plain" id="blob-([\w-]+)">([^<]*)</script>', html)
    return {name: json.loads(gzip.decompress(b64decode(text))) for name, text in found}


def test_everything_of_a_tree_is_in_the_page(picture, tmp_path):
    html = write_tree_page(picture, tmp_path / "page.html").read_text()
    data = blobs(html)["tree-0"]
    tree = picture.tree
    for name in ("parent", "depth", "status", "simulation", "visits"):
        assert data[name] == getattr(tree, name).tolist()
    assert data["text"][4] == HOSTILE
    assert read_page(tmp_path / "page.html")["tree-0"] == data
    assert data["answer"] == tree.answer
    assert data["potential"] == [0, 0.3, 0.5, 0.4, 1.0, 0.6, 0.2]
    assert data["pruned_at"] == [-1, -1, -1, -1, -1, -1, 4]
    assert data["revisits"] == [[4, 4]]
    assert [data["groups"][g] if g >= 0 else None for g in data["group"]] == [None, None, None, "3", "<4>", None, None]


def test_a_pruned_node_names_the_nearest_that_was_kept(picture):
    a, u = picture.latents.radius.double().numpy(), picture.latents.direction.double().numpy()
    # hyperbolic law of cosines about the root, curvature −1: a distance from the root is twice the tangent norm
    cosh = np.cosh(2 * a) * np.cosh(2 * a[6]) - np.sinh(2 * a) * np.sinh(2 * a[6]) * (u @ u[6])
    distance = np.arccosh(cosh.clip(1))
    distance[[0, 6]] = np.inf  # not the root, not itself
    assert tree_data(picture)["merged"] == [-1] * 6 + [int(distance.argmin())]


def test_text_never_becomes_markup(picture):
    html = render_page(Page(HOSTILE, HOSTILE, trees=[PageTree(picture, HOSTILE)], sections=[Section(HOSTILE, HOSTILE)]))
    body = html[html.index("</title>") :]
    assert "owned" not in body
    assert "<script>document" not in html


def test_the_page_is_reproducible_and_small(picture):
    page = Page("a", trees=[PageTree(picture, "b")])
    assert render_page(page) == render_page(page)
    assert len(render_page(Page("empty"))) < 300_000


def test_long_steps_say_what_is_left_out():
    tree = SearchTree("q", [1])
    tree.add(0, tokens=[1], logprobs=[0.0], text="x" * 1000, value=float("nan"))
    picture = TreePicture(tree, PolarPoints.from_tangent(torch.zeros(2, 3)))
    text = tree_data(picture, max_text=100)["text"][1]
    assert text.startswith("x" * 100 + "\n")
    assert "900 more characters" in text
    assert tree_data(picture)["value"][1] is None


def test_samples_are_split_into_blobs():
    run = PageRun(
        "r", range(250), ["q"] * 250, [None] * 250,
        {"single": {name: [None] * 250 for name in ("answer", "correct", "value", "tokens", "samples")}},
        samples={i: {"single": [{"answer": str(i), "correct": None, "value": None, "text": None}]} for i in range(250)},
    )  # fmt: skip
    found = blobs(render_page(Page("a", runs=[run])))
    (entry,) = found["manifest"]["runs"]
    assert entry["samples"] == ["samples-0-0", "samples-0-1", "samples-0-2"]
    assert found["samples-0-2"]["249"]["single"][0]["answer"] == "249"
    assert set(found["samples-0-1"]) == {str(i) for i in range(100, 200)}


def test_shapes_that_disagree_are_named(picture):
    with pytest.raises(ValueError, match="potential: expected shape"):
        TreePicture(picture.tree, picture.latents, potential=np.zeros(3))
    with pytest.raises(ValueError, match="chosen: expected a node"):
        TreePicture(picture.tree, picture.latents, chosen=7)
    with pytest.raises(ValueError, match=r"rows\[0\]: expected 2 cells"):
        Table(["a", "b"], [[1]])


def test_charts_hold_their_numbers():
    chart = learning_curve({"loss": Curve(range(30), [float(i) for i in range(30)])})
    # a running mean over the last three points
    assert chart.to_dict()["series"][0]["y"][:4] == [0, 0.5, 1.0, 2.0]
    chart = reliability_diagram([0.05, 0.95, 0.96, 0.97], [False, True, True, False])
    (series,) = chart.to_dict()["series"]
    assert series["y"] == pytest.approx([0, 2 / 3], rel=1e-5)
    assert series["size"] == [1, 3]
    # Wilson's interval for 2 of 3 at 95 %
    z, n, p = 1.959964, 3, 2 / 3
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    assert (series["low"][1], series["high"][1]) == pytest.approx((middle - half, middle + half), rel=1e-5)


def test_the_committed_viewer_is_built_from_these_sources():
    """`make viewer` writes the digest of its sources into what it builds."""
    viewer = ROOT / "viewer"
    digest = hashlib.sha256()

    def add(path: Path) -> None:
        digest.update(f"{path.relative_to(viewer).as_posix()}\0".encode() + path.read_bytes() + b"\0")

    def walk(folder: Path) -> None:
        for entry in sorted(folder.iterdir(), key=lambda e: e.name):
            walk(entry) if entry.is_dir() else add(entry)

    walk(viewer / "src")
    add(viewer / "package.json")
    add(viewer / "build.mjs")
    for name in ("viewer.js", "viewer.css"):
        first = (ROOT / "src/lapha/viz/assets" / name).read_text(encoding="utf-8").splitlines()[0]
        assert digest.hexdigest()[:16] in first, "run make viewer"
