import json
import re

import numpy as np
import pytest

from lapha.viz import TreePicture, render_report, tree_figure, write_tree_page
from lapha.viz.report import Figure, Report, Section
from lapha.viz.style import UNKNOWN, viridis


def disks(figure: str) -> list[str]:
    return re.findall(r'<svg class="disk".*?</svg>', figure, flags=re.DOTALL)


def test_two_disks_show_every_node_once_coloured_by_v_and_by_the_head(picture):
    by_potential, by_value = disks(tree_figure(picture))
    for disk in (by_potential, by_value):
        assert sorted(map(int, re.findall(r'data-n="(\d+)"', disk))) == list(range(7))
        assert sorted(map(int, re.findall(r'data-e="(\d+)"', disk))) == list(range(1, 7))
    fills = dict(re.findall(r'data-n="(\d+)" fill="([^"]+)"', by_potential))
    assert fills["4"] == viridis(1.0)
    assert fills["1"] == viridis(0.3)
    assert fills["6"] == "none"
    fills = dict(re.findall(r'data-n="(\d+)" fill="([^"]+)"', by_value))
    assert fills["0"] == UNKNOWN  # no value at the root
    assert fills["2"] == viridis(np.float32(0.6))


def test_marks_say_what_a_node_is(picture):
    disk = disks(tree_figure(picture))[0]
    kinds = dict(re.findall(r'class="n (\w+)" data-n="(\d+)"', disk))
    assert {kind: node for kind, node in kinds.items() if kind != "open"} == {
        "root": "0", "answered": "3", "correct": "4", "ended": "5", "pruned": "6",
    }  # fmt: skip
    assert disk.count('class="halo"') == 1
    assert re.findall(r'class="edge chosen" data-e="(\d+)"', disk) == ["2", "4"]
    assert re.findall(r'class="edge pruned" data-e="(\d+)"', disk) == ["6"]


def test_values_that_hardly_differ_are_stretched_and_the_bar_says_so(picture):
    picture.tree.value[1:] = [0.40, 0.41, 0.42, 0.43, 0.44, 0.45]
    by_value = disks(tree_figure(picture))[1]
    fills = dict(re.findall(r'data-n="(\d+)" fill="([^"]+)"', by_value))
    assert fills["1"] == viridis(0.0)
    assert "v̂ = 0.4<" in by_value
    assert ">0.45<" in by_value


def test_without_a_goal_there_is_one_disk(picture):
    assert len(disks(tree_figure(TreePicture(picture.tree, picture.latents)))) == 1


def test_text_of_the_model_cannot_leave_its_element(picture, hostile):
    figure = tree_figure(picture)
    assert "<script>document" not in figure
    assert "T &lt;i&gt;itle" in figure
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure, re.DOTALL)[1])
    assert data[4]["t"] == hostile
    assert data[4]["a"] == "<4>"
    assert data[4]["V"] == 1.0
    assert data[0]["v"] is None


def test_long_steps_are_cut_and_say_so(picture):
    picture.tree.text[1] = "x" * 5000
    data = json.loads(re.search(r"json\">(.*?)</script>", tree_figure(picture, max_text=100), re.DOTALL)[1])
    assert data[1]["t"] == "x" * 100 + " …"


def test_hovering_shows_the_step_and_lights_its_path_on_both_disks(picture, browse):
    page = render_report(Report("page", sections=[Section("", items=[Figure(tree_figure(picture))])]))
    probe = """<script>
      const node = document.querySelectorAll("[data-n='4']")[1];
      node.dispatchEvent(new MouseEvent("mouseover", {bubbles: true, clientX: 50, clientY: 60}));
      document.documentElement.dataset.lit = document.querySelectorAll(".lit").length;
      document.documentElement.dataset.shown = document.querySelector(".tip").textContent;
      node.dispatchEvent(new MouseEvent("mouseout", {bubbles: true}));
      document.documentElement.dataset.after = document.querySelectorAll(".lit").length + " " + document.querySelector(".tip").hidden;
      node.dispatchEvent(new MouseEvent("click", {bubbles: true}));
      node.dispatchEvent(new MouseEvent("mouseout", {bubbles: true}));
      document.documentElement.dataset.pinned = document.querySelector(".tip").hidden;
    </script></body>"""
    dom = browse(page.replace("</body>", probe))
    root = re.search(r"<html[^>]*>", dom)[0]
    # path 4 -> 2 -> 0: three nodes and two edges on each of two disks
    assert 'data-lit="10"' in root
    assert 'data-after="0 true"' in root
    assert 'data-pinned="false"' in root
    assert "node 4 · depth 2 · correct" in root
    assert "V = 1" in root
    assert "a &lt; b &amp; c &lt;/script&gt;" in root
    assert "<title>page</title>" in dom  # the hostile step would have set it to "owned"


def test_write_tree_page(picture, tmp_path):
    page = write_tree_page(picture, tmp_path / "tree.html").read_text(encoding="utf-8")
    assert len(disks(page)) == 2
    assert "Which &lt;number&gt;?" in page
    assert "&lt;4&gt;" in page
    assert list(tmp_path.iterdir()) == [tmp_path / "tree.html"]


def test_bad_input_names_the_argument(picture):
    with pytest.raises(ValueError, match=r"potential: expected shape \(7,\), got \(3,\)"):
        TreePicture(picture.tree, picture.latents, potential=np.zeros(3))
    with pytest.raises(ValueError, match=r"chosen: expected a node in \[0, 7\), got 7"):
        TreePicture(picture.tree, picture.latents, chosen=7)
    with pytest.raises(ValueError, match="max_text"):
        tree_figure(picture, max_text=0)
