"""Every Python snippet of the README and of the docs runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: (?P<why>[^>]+) -->\n)?```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL
)


def snippets():
    for page in PAGES:
        text = page.read_text()
        for index, match in enumerate(BLOCK.finditer(text)):
            if match["why"]:
                assert len(match["why"]) > 10, f"{page.name}: say why snippet {index} is not run"
                continue
            line = text[: match.start()].count("\n") + 1
            yield pytest.param(match["code"], id=f"{page.name}:{line}")


def test_the_readme_has_snippets():
    assert len([match for match in BLOCK.finditer((ROOT / "README.md").read_text())]) >= 2


@pytest.mark.parametrize("code", snippets())
def test_snippet_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "<snippet>", "exec"), {"__name__": "__snippet__"})
