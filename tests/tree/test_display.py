"""A tree as text: everything is there, nothing is markup, large trees say what they leave out."""

import io

import pytest

from lapha.tree import SearchTree
from lapha.tree.display import MOST, one_line, outline_html, rich_tree, shown_nodes
from lapha.types import Status


def small() -> SearchTree:
    tree = SearchTree("What is [bold]6·7[/bold]?", [1, 2])
    first = tree.add(0, tokens=[3], logprobs=[-0.1], text="STEP-1:\n<think>\n<b>six</b> [/x]\n</think>", value=0.25)
    tree.add(first, tokens=[4], logprobs=[-0.1], text="…", answer="42", status=Status.ANSWERED, value=0.9)
    tree.add(0, tokens=[5], logprobs=[-0.1], text="cut \x1b[31m", status=Status.DEPTH_LIMIT)
    tree.pruned[1] = True
    return tree


def printed(tree, chosen=None) -> str:
    console = pytest.importorskip("rich.console")
    out = io.StringIO()
    console.Console(file=out, width=200, color_system=None).print(rich_tree(tree, chosen))
    return out.getvalue()


def test_repr_says_what_the_tree_is():
    assert repr(small()) == "SearchTree('What is [bold]6·7[/bold]?', 4 nodes, depth 2, 1 answers, 1 pruned, 3 tokens)"


def test_the_terminal_shows_text_as_text():
    lines = printed(small(), 2).splitlines()
    assert lines[0] == "What is [bold]6·7[/bold]?"
    assert "<b>six</b> [/x]  [v̂ 0.25, 0 visits, pruned]" in lines[1]
    assert "answer: 42  [v̂ 0.90, 0 visits]" in lines[2]
    assert "cut \ufffd[31m  [0 visits, depth limit]" in lines[3]


def test_notebooks_get_escaped_html_with_the_chosen_path_open():
    html = outline_html(small(), 2)
    assert "&lt;b&gt;six&lt;/b&gt;" in html
    assert "<b>six</b>" not in html
    assert html.count("<details open>") == 2
    assert html.count("<li>") == 4
    assert small()._repr_html_().startswith("<div>")


def test_a_large_tree_shows_its_chosen_path_and_counts_the_rest():
    tree = SearchTree("q", [1])
    for node in range(1, 3 * MOST):
        tree.add((node - 1) // 3, tokens=[1], logprobs=[0.0], text=f"step {node}", value=0.5)
    last = len(tree) - 1
    shown = shown_nodes(tree, last)
    assert set(tree.path(last)) <= shown
    assert MOST <= len(shown) <= MOST + 10
    assert all(int(tree.parent[node]) in shown for node in shown if node)
    text = printed(tree, last)
    left_out = sum(int(line.split("…")[1].split()[0]) for line in text.splitlines() if "more" in line)
    # what is under a node that is left out is left out with it
    hidden_tops = sum(int(tree.parent[node]) in shown for node in range(1, len(tree)) if node not in shown)
    assert left_out == hidden_tops > 0


def test_a_deep_tree_has_an_outline():
    tree = SearchTree("q", [1])
    for node in range(1, 3000):
        tree.add(node - 1, tokens=[1], logprobs=[0.0], text="step", value=0.5)
    assert outline_html(tree, 2999).count("<details open>") == 2999
    assert len(printed(tree)) > 0


def test_one_line_cuts_and_shows_what_cannot_be_seen():
    assert one_line("a\n  b\u202ec", 20) == "a b\ufffdc"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
    assert len(one_line("x" * 10**6, 10)) == 10
