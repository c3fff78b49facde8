"""The page of an evaluation: what it holds, and how large it gets."""

import pytest

from benchmarks.generated_run import generate_run
from lapha.evaluation.page import write_run_report
from lapha.evaluation.results import read_graded
from lapha.viz import read_page

LARGEST = 5_000_000  # bytes


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of 80 problems in five modes."""
    folder = tmp_path_factory.mktemp("many")
    generate_run(folder / "run", problems=80, simulations=3)
    return write_run_report([folder / "run"], folder / "report.html")


def test_many_problems_take_little_room(many):
    assert many.stat().st_size < LARGEST


def test_every_problem_mode_and_tree_is_in_the_page(many):
    page = read_page(many)
    run = read_graded(many.parent / "run")
    assert page["manifest"]["runs"][0]["modes"] == list(run.outcomes)
    problems = page["problems-0"]
    for mode, outcomes in run.outcomes.items():
        assert problems["modes"][mode]["answer"] == [outcome.answer for outcome in outcomes]
        right = [None if o.answer is None else run.verdicts[o.index, o.answer].correct for o in outcomes]
        assert problems["modes"][mode]["correct"] == right
    assert [tree["index"] for tree in page["manifest"]["trees"]] == [int(path.stem) for path in run.search_files()]
    wrote = page["samples-0-0"]["3"]
    assert all(sample["text"].startswith("STEP") for mode in run.outcomes for sample in wrote[mode])
    assert wrote["majority"] == wrote["best-of-n"]  # the same chains
    first = page["manifest"]["trees"][0]
    result = run.load_search(run.search_files()[0])
    assert page[first["blob"]]["text"] == result.tree.text
    assert page[first["blob"]]["correct"] == run.goal(result).tolist()


def test_long_steps_of_large_trees_fit(tmp_path):
    generate_run(tmp_path / "run", problems=5, simulations=199, modes=["value"], characters=1500)
    path = write_run_report([tmp_path / "run"], tmp_path / "report.html")
    page = read_page(path)
    run = read_graded(tmp_path / "run")
    sizes = [len(run.load_search(file).tree) for file in run.search_files()]
    assert [tree["nodes"] for tree in page["manifest"]["trees"]] == sizes  # all nodes are there
    assert min(sizes) > 1000
    assert path.stat().st_size < LARGEST


def test_a_browser_opens_the_page_and_asks_the_network_for_nothing(many, open_page):
    page = open_page(many.read_text(encoding="utf-8"), "#tab=problems")
    page.wait_for_selector("#problems .grid-row:not(.head)")
    assert page.inner_text("#count") == "80 of 80"


def test_the_page_stops_what_would_leave_it(many, open_page):
    """The control: the page's own policy stops a picture from elsewhere."""
    html = many.read_text(encoding="utf-8").replace(
        "</body>", '<script>document.addEventListener("securitypolicyviolation", () => '
        'document.documentElement.dataset.stopped = "yes")</script><img src="http://127.0.0.1:9/x.png"></body>',
    )  # fmt: skip
    problems: list[str] = []
    page = open_page(html, problems=problems)
    page.wait_for_selector("html[data-stopped]")
    assert any("violates" in problem for problem in problems)


def test_a_generated_run_is_graded_as_a_real_one(many):
    run = read_graded(many.parent / "run")
    assert {mode: len(outcomes) for mode, outcomes in run.outcomes.items()}.keys() == run.scores.keys()
    assert 0 < run.scores["value"].accuracy.mean < 1
