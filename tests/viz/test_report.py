import re

import numpy as np
import pytest

from lapha.viz import (
    Curve,
    Figure,
    Report,
    Section,
    Table,
    accuracy_curve,
    learning_curve,
    reliability_diagram,
    render_report,
    scatter,
    write_report,
)
from lapha.viz.curves import _running_mean


def full_report() -> Report:
    rng = np.random.default_rng(0)
    pictures = [
        learning_curve({"reward": Curve(range(40), rng.random(40)), "leaf accuracy": Curve([0, 39], [0.1, 0.4])}),
        accuracy_curve({"value": Curve([1, 4, 16], [0.2, 0.3, 0.4], [0.1, 0.2, 0.3], [0.3, 0.4, 0.5])}),
        accuracy_curve(
            {"single": Curve([60], [0.2], [0.1], [0.3]), "value": Curve([60, 90], [0.2, 0.3])}, xlabel="tokens"
        ),
        reliability_diagram(rng.random(200), rng.random(200) < 0.5),
        scatter(rng.random(50), rng.random(50), xlabel="V", ylabel="v̂"),
    ]
    table = Table(["mode", "accuracy"], [["single", 0.5], ["<value>", "62 %"]], "caption & more", emphasised=[1])
    sections = [Section("Table", "words <b>", [table]), Section("Curves", items=[Figure(p, "c") for p in pictures])]
    return Report("A <title>", "sub & title", {"facts <": "1 & 2"}, sections, footer="foot <")


def test_the_page_asks_nothing_of_the_network_and_escapes_text():
    page = render_report(full_report())
    assert not re.search(r"""(src|href|xlink:href)=["']?+(?!#|data:)""", page)
    assert not re.search(r"@import|url\((?!#|data:)", page)
    assert "default-src 'none'" in page
    for raw in ("A <title>", "words <b>", "<value>", "facts <<"):
        assert raw not in page
    for escaped in ("A &lt;title&gt;", "sub &amp; title", "words &lt;b&gt;", "&lt;value&gt;", "1 &amp; 2", "foot &lt;"):
        assert escaped in page
    assert page.count('<tr class="strong">') == 1


def test_references_inside_the_page_resolve_and_ids_that_are_used_are_unique():
    page = render_report(full_report())
    ids = re.findall(r'\bid="([^"]+)"', page)
    used = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used
    for name in used:
        assert ids.count(name) == 1, name


def test_the_same_data_gives_the_same_bytes():
    assert render_report(full_report()) == render_report(full_report())


def test_the_browser_draws_every_figure(browse):
    probe = """<script>
      const boxes = [...document.querySelectorAll(".picture > svg")].map(svg => svg.getBoundingClientRect());
      document.documentElement.dataset.drawn = boxes.filter(box => box.width > 200 && box.height > 150).length;
      document.documentElement.dataset.wide = document.documentElement.scrollWidth <= window.innerWidth;
    </script></body>"""
    dom = browse(render_report(full_report()).replace("</body>", probe))
    assert 'data-drawn="5"' in dom
    assert 'data-wide="true"' in dom


def test_write_report_replaces_the_file_whole(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_report(Report("new"), path) == path
    assert "<h1>new</h1>" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_running_mean_leaves_gaps_out():
    out = _running_mean(np.array([1.0, np.nan, 3.0, 5.0]), 2)
    assert out.tolist() == [1.0, 1.0, 3.0, 4.0]


def test_reliability_bins_hold_the_share_of_correct_outcomes():
    svg = reliability_diagram([0.05, 0.05, 0.95, 1.0], [False, True, True, True], bins=2)
    assert svg.startswith("<svg")
    assert "share correct" in svg


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Curve([1, 2], [1]), r"y: expected length 2, got \(1,\)"),
        (lambda: Curve([], []), "x: expected at least one point"),
        (lambda: learning_curve({}), "curves: expected at least one curve, got 0"),
        (
            lambda: accuracy_curve({"a": Curve([0, 1], [0, 1])}),
            r"x: expected costs > 0 on a logarithmic axis, got 0 in 'a'",
        ),
        (lambda: reliability_diagram([1.5], [True]), r"predicted: expected numbers in \[0, 1\]"),
        (lambda: reliability_diagram([0.5], []), "predicted: expected as many as outcomes"),
        (lambda: reliability_diagram([0.5], [True], bins=0), "bins: expected an integer >= 1, got 0"),
        (lambda: Table(["a"], [[1, 2]]), r"rows\[0\]: expected 1 cells, got 2"),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
