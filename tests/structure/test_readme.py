"""Every Python snippet of the README and of the docs runs as it stands: the README's alone, a page's in order."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: (?P<why>[^>]+) -->\n)?```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL
)


def snippets(page):
    """(line, code) of every snippet of a page that is to be run."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        if match["why"]:
            assert len(match["why"]) > 10, f"{page.name}: say why a snippet is not run"
            continue
        found.append((text[: match.start("code")].count("\n"), match["code"]))
    return found


def run(page, line, code, namespace):
    # blank lines in front, so that a traceback names the page's own line
    exec(compile("\n" * line + code, page.name, "exec"), namespace)


def test_the_readme_has_snippets():
    assert len(snippets(README)) >= 2


@pytest.mark.parametrize(("line", "code"), [pytest.param(*found, id=f"line {found[0]}") for found in snippets(README)])
def test_readme_snippet_runs_alone(line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(README, line, code, {"__name__": "__snippet__"})


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_snippets_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__snippet__"}
    for line, code in snippets(page):
        run(page, line, code, namespace)


def test_a_broken_snippet_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n```python\nx = 1\nassert x == 2\n```\n")
    ((line, code),) = snippets(page)
    with pytest.raises(AssertionError):
        run(page, line, code, {})
