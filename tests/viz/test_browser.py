"""The page in a real browser: keyboard, filter, slider, links, search, hostile text, both schemes, accessibility."""

import numpy as np
import pytest
import torch

from lapha.geometry import PolarPoints
from lapha.tree import SearchTree
from lapha.types import Status
from lapha.viz import Chart, Curve, Page, PageRun, PageTree, Section, Table, TreePicture, render_page

COLUMNS = ("answer", "correct", "value", "tokens", "samples")


def problem_run(name: str, count: int, right) -> PageRun:
    modes = {}
    for mode, shift in (("value", 0), ("best-of-n", 1)):
        correct = [right(i + shift) for i in range(count)]
        columns = (
            [str(i) for i in range(count)],
            correct,
            [i % 10 / 10 for i in range(count)],
            [i % 97 for i in range(count)],
            [1] * count,
        )
        modes[mode] = dict(zip(COLUMNS, columns))
    samples = {
        i: {"value": [{"answer": str(i), "correct": True, "value": 0.5, "text": f"<think>why {i}</think>"}]}
        for i in range(min(count, 150))
    }
    return PageRun(
        name,
        range(count),
        [f"question {i} of {name.split()[0]}" for i in range(count)],
        [str(i) for i in range(count)],
        modes,
        samples=samples,
    )


@pytest.fixture
def page_text(picture):
    charts = [
        Chart(
            {"a": Curve([1, 2, 4], [0.1, 0.5, 0.6], [0, 0.4, 0.5], [0.2, 0.6, 0.7]), "b": Curve([3], [0.5])},
            xlabel="x",
            ylabel="accuracy",
            log=True,
            percent=True,
        ),
        Chart(
            {"observed": Curve([0.2, 0.8], [0.1, 0.9], [0, 0.8], [0.3, 1], [3, 9])},
            mark="calibration",
            unit=True,
            diagonal=True,
        ),
    ]
    runs = [problem_run("run A", 40, lambda i: i % 3 == 0), problem_run("run B", 40, lambda i: i % 2 == 0)]
    return render_page(
        Page(
            "A page", "of tests", {"accuracy": "50 %"},
            [Section("Results", "words", [Table(["mode", "n"], [["value", 3]], "a caption", [0]), *charts])],
            runs=runs,
            trees=[PageTree(picture, "first tree", run=0, index=3), PageTree(picture, "step 5", step=5)],
            training={"one": {"loss": ([1, 2, 3], [3.0, 2.0, 1.0])}, "two": {"loss": ([1, 2], [2.0, 1.0]), "kl": ([1], [0.1])}},
            comparisons=[{"mode": "value", "base": 0, "other": 1, "difference": 0.1, "low": -0.05, "high": 0.25, "count": 40, "verdict": "not told apart"}],
        )
    )  # fmt: skip


def settle(page) -> None:
    """Wait until what was done is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def selected(page) -> int:
    settle(page)
    return int(page.get_attribute("[role=treeitem][aria-selected=true]", "id").removeprefix("row-"))


def test_the_keyboard_walks_the_tree(page_text, open_page):
    page = open_page(page_text, "#tab=tree")
    page.focus("#outline")
    assert selected(page) == 4  # the chosen leaf
    page.keyboard.press("Home")
    assert selected(page) == 0
    page.keyboard.press("ArrowRight")
    assert selected(page) == 1
    page.keyboard.press("ArrowLeft")  # folds node 1
    settle(page)
    assert page.query_selector("#row-3") is None
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert selected(page) == 3
    page.keyboard.press("ArrowLeft")  # a leaf: to its parent
    assert selected(page) == 1
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    settle(page)
    assert page.evaluate("document.activeElement.id") == "transcript"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("first thought")
    page.keyboard.press("Enter")
    assert selected(page) == 1
    page.keyboard.press("Escape")
    assert page.input_value("#search") == ""
    assert page.evaluate("document.activeElement.id") == "outline"


# a newcomer's question, the one action that answers it, where it leads, and words that stand in the path then
QUESTIONS = [
    ("First expansion", 0, "Which <number>?"),
    ("Answer’s path", 4, "answer <4> · right"),
    ("Best wrong leaf", 3, "answer 3 · wrong"),
    ("First pruned", 6, "pruned after simulation 4; nearest node that was kept:"),
    ("Largest |V − v̂|", 5, "depth limit · V 0.600 · v̂ 0.100"),
]


@pytest.mark.parametrize(("button", "node", "words"), QUESTIONS, ids=[q[0] for q in QUESTIONS])
def test_a_newcomers_question_is_one_action_away(page_text, open_page, button, node, words):
    page = open_page(page_text, "#tab=tree&n=2")
    page.get_by_role("button", name=button, exact=True).click()
    assert selected(page) == node
    assert words in " ".join(page.inner_text("#transcript").split())


def test_the_slider_replays_the_search(page_text, open_page):
    page = open_page(page_text, "#tab=tree")
    assert page.inner_text("#moment") == "4 of 4: 7 nodes"
    page.focus("#simulation")
    seen = []
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
        settle(page)
        seen.append(page.inner_text("#moment"))
    assert seen == ["3 of 4: 7 nodes", "2 of 4: 4 nodes", "1 of 4: 3 nodes", "0 of 4: 1 nodes"]
    page.get_by_role("button", name="Replay").click()
    page.locator("#moment", has_text="4 of 4").wait_for()
    assert page.get_by_role("button", name="Replay").is_visible()


def test_filters_show_what_they_say(page_text, open_page):
    page = open_page(page_text, "#tab=tree")

    def matches(name: str) -> list[int]:
        page.select_option("#filter", label=name)
        settle(page)
        rows = page.query_selector_all("[role=treeitem]:not(.context)")
        return [int(row.get_attribute("id").removeprefix("row-")) for row in rows]

    assert matches("right answers") == [4]
    assert matches("wrong answers") == [3]
    assert matches("pruned") == [6]
    assert matches("leaves with an answer") == [3, 4]
    assert len(matches("all nodes")) == 7


def test_leaves_are_grouped_by_answer(page_text, open_page):
    page = open_page(page_text, "#tab=tree")
    assert page.inner_text(".groups").split("\n") == ["1 → 3 wrong", "1 → <4> right (chosen)"]
    page.get_by_text("1 → 3 wrong").click()
    assert selected(page) == 3


def test_a_link_opens_its_node(page_text, open_page):
    page = open_page(page_text, "#t=1&n=2&s=2")
    assert selected(page) == 2
    assert page.inner_text("#moment") == "2 of 4: 4 nodes"
    page.focus("#outline")
    page.keyboard.press("ArrowUp")
    assert "n=3" in page.evaluate("location.hash")


def test_hostile_text_is_text(page_text, open_page):
    page = open_page(page_text, "#tab=tree&n=4")
    assert page.title() == "A page"
    shown = page.inner_text("#transcript")
    assert "</script><script>document.title='owned'</script>" in shown
    for hidden in ("U+202E", "U+2028", "U+001B", "U+200B", "U+D800"):
        assert hidden in shown
    assert "\u202e" not in page.evaluate("document.body.textContent")
    assert page.query_selector("#transcript img") is None


def test_the_disk_is_drawn_and_saved(page_text, open_page):
    page = open_page(page_text, "#tab=tree&n=4")
    assert page.get_attribute("canvas", "data-drawn") == "7"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save SVG").click()
    svg = download.value.path().read_text()
    assert svg.startswith("<svg")
    assert svg.count("<circle") >= 2 + 1  # the disk, rings, the chosen leaf
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    # a click on the middle of the disk selects the root
    box = page.locator("canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert selected(page) == 0
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Whole disk").click()


def test_problems_are_filtered_sorted_and_read(page_text, open_page):
    page = open_page(page_text, "#tab=problems")
    assert page.inner_text("#count") == "40 of 40"
    page.get_by_role("button", name="value wrong, best-of-n right").click()
    settle(page)
    # value is right where i % 3 = 0, best-of-n where (i + 1) % 3 = 0
    assert page.inner_text("#count") == "13 of 40"
    page.get_by_role("button", name="Clear").click()
    page.fill("#search", "question 17")
    settle(page)
    assert page.inner_text("#count") == "1 of 40"
    page.focus("#problems")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert "question 17 of run" in dialog.inner_text()
    dialog.get_by_text("why 17").wait_for()
    page.keyboard.press("Escape")
    settle(page)
    assert page.query_selector("[role=dialog]") is None
    page.fill("#search", "")
    page.locator("[role=columnheader]", has_text="v̂").first.get_by_role("button").click()
    settle(page)
    first = page.locator("#problems .grid-row:not(.head)").first
    assert first.inner_text().split()[0] == "9"  # highest v̂ first, then by number
    page.goto(page.url.split("#")[0] + "#tab=problems&p=3")
    page.get_by_role("button", name="Open its tree").click()
    assert page.locator("#outline").is_visible()


def test_two_runs_are_compared(page_text, open_page):
    page = open_page(page_text, "#tab=compare")
    # right in A: i % 3 = 0 (14), in B: i % 2 = 0 (20), both: i % 6 = 0 (7)
    text = page.inner_text(".lead")
    assert "both right 7, only the first 7, only the second 13, none 13" in text
    assert "10.0 points, 95 % interval -5.0 to 25.0 (not told apart)" in text
    assert page.locator(".grid-row.compare:not(.head)").count() == 7


def test_training_runs_stand_side_by_side(page_text, open_page):
    page = open_page(page_text, "#tab=training")
    assert page.locator(".chart").count() == 2
    assert page.locator(".chart").filter(has_text="one").locator(".line").count() == 2
    page.get_by_role("button", name="step 5").click()
    assert page.locator("#outline").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", ["overview", "problems", "problems&p=3", "tree", "training", "compare"])
def test_no_serious_accessibility_problem(page_text, open_page, tab, scheme):
    page = open_page(page_text, f"#tab={tab}", scheme=scheme)
    settle(page)
    assert serious(page) == []


def serious(page) -> list:
    """Serious and critical findings of axe-core."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = [v for v in axe.run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    return [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found]


def test_the_accessibility_check_can_fail(page_text, open_page):
    page = open_page(page_text)
    page.evaluate("() => document.body.insertAdjacentHTML('beforeend', '<button></button>')")
    assert [name for name, _ in serious(page)] == ["button-name"]


@pytest.mark.parametrize("width", [390, 800, 2560])
@pytest.mark.parametrize("tab", ["overview", "problems", "tree", "compare"])
def test_nothing_sticks_out_of_the_page(page_text, open_page, tab, width):
    page = open_page(page_text, f"#tab={tab}", width=width, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_ten_thousand_rows_and_nodes_stay_fluid(open_page):
    """Only what is seen exists: rows are few in the document, whatever the data holds."""
    rng = np.random.default_rng(0)
    tree = SearchTree("large", [1], capacity=10_000)
    for node in range(1, 10_000):
        parent = int(rng.integers(max(0, node - 60), node)) if node > 6 else 0
        status = Status.ANSWERED if node % 7 == 0 else Status.OPEN
        if tree.status[parent] != Status.OPEN or tree.depth[parent] > 20:
            parent = 0
        made = tree.add(
            parent,
            tokens=[1],
            logprobs=[-0.1],
            text=f"step {node}",
            answer="1" if node % 7 == 0 else None,
            status=status,
            value=0.5,
        )
        tree.simulation[made] = 1 + node // 6
    tangent = torch.randn(10_000, 16) * 0.2
    tangent[0] = 0
    picture = TreePicture(tree, PolarPoints.from_tangent(tangent))
    text = render_page(
        Page("large", runs=[problem_run("run A", 10_000, lambda i: i % 2 == 0)], trees=[PageTree(picture, "t")])
    )
    page = open_page(text, "#tab=tree")
    page.wait_for_selector("canvas[data-drawn='10000']")
    assert page.locator("[role=treeitem]").count() < 120
    page.focus("#outline")
    page.keyboard.press("End")
    settle(page)
    assert page.locator("[role=treeitem][aria-selected=true]").is_visible()
    page.goto(page.url.split("#")[0] + "#tab=problems")
    page.wait_for_selector("#count")
    assert page.locator("#problems .grid-row").count() < 80
    page.focus("#problems")
    page.keyboard.press("End")
    settle(page)
    assert "question 9999" in page.locator("#problems [aria-selected=true]").inner_text()


def test_the_browser_tests_can_fail(open_page):
    page = open_page(render_page(Page("empty")))
    assert "holds nothing to show" in page.inner_text("#app")
    assert page.query_selector("#outline") is None
