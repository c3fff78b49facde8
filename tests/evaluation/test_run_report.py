"""The page of an evaluation: how large it gets, and what a browser makes of it."""

import pytest

pytest.importorskip("jinja2", reason="needs lapha[viz]")
pytest.importorskip("matplotlib", reason="needs lapha[viz]")

from benchmarks.generated_run import generate_run
from lapha.evaluation.report import write_run_report
from lapha.evaluation.results import read_graded

LARGEST = 5_000_000  # bytes

# runs before anything else on the page: what is asked of the network, and what the page's own policy stopped
WATCH = """<script>
  window.stopped = 0;
  document.addEventListener("securitypolicyviolation", () => { window.stopped += 1; });
</script>"""
PROBE = """<script>window.addEventListener("load", () => setTimeout(() => {
  const data = document.documentElement.dataset;
  data.requests = performance.getEntriesByType("resource").length;
  data.stopped = window.stopped;
  data.disks = document.querySelectorAll("svg.disk").length;
  data.nodes = document.querySelectorAll("svg.disk .n").length;
  data.wide = document.documentElement.scrollWidth <= window.innerWidth;
}, 100));</script></body>"""


def looked_at(browse, page):
    head, body = page.split("<title>", 1)
    return browse((head + WATCH + "<title>" + body).replace("</body>", PROBE))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of 80 problems in five modes."""
    folder = tmp_path_factory.mktemp("many")
    generate_run(folder / "run", problems=80, simulations=3)
    return write_run_report([folder / "run"], folder / "report.html")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A page of five trees of the largest size that is drawn, with steps of 1,500 characters."""
    folder = tmp_path_factory.mktemp("large")
    generate_run(folder / "run", problems=5, simulations=199, modes=["value"], characters=1500)
    return write_run_report([folder / "run"], folder / "report.html")


def test_many_problems_take_little_room(many):
    assert many.stat().st_size < LARGEST


def test_the_largest_trees_are_drawn_and_fit(large):
    text = large.read_text(encoding="utf-8")
    assert text.count('<figure class="tree">') == 4
    assert text.count('data-n="1194"') == 2 * 4  # all nodes are there, by V and by v̂
    assert len(text.encode()) < LARGEST


def test_a_browser_draws_the_page_and_asks_the_network_for_nothing(many, browse):
    text = many.read_text(encoding="utf-8")
    dom = looked_at(browse, text)
    assert 'data-requests="0"' in dom
    assert 'data-stopped="0"' in dom
    assert f'data-disks="{text.count("<svg class=" + chr(34) + "disk")}"' in dom
    assert 'data-wide="true"' in dom


def test_the_watch_sees_what_a_page_asks_for(many, browse):
    """The control: a picture from elsewhere is stopped by the page's policy, and without the policy it is asked for."""
    text = many.read_text(encoding="utf-8").replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">')
    assert 'data-stopped="1"' in looked_at(browse, text)
    free = looked_at(browse, text.replace("default-src 'none'", "default-src *").replace("img-src data:", "img-src *"))
    assert 'data-stopped="0"' in free
    assert 'data-requests="1"' in free


def test_a_generated_run_is_graded_as_a_real_one(many):
    run = read_graded(many.parent / "run")
    assert {mode: len(outcomes) for mode, outcomes in run.outcomes.items()}.keys() == run.scores.keys()
    assert 0 < run.scores["value"].accuracy.mean < 1
