"""The Python in the documents runs."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["search.md", "shaping.md"])
def test_snippets_run_in_order(name, capsys):
    snippets = re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 2
    space: dict = {}
    for number, snippet in enumerate(snippets):
        exec(compile(snippet, f"{name}, snippet {number}", "exec"), space)
    if name == "search.md":
        assert len(capsys.readouterr().out.splitlines()) == 2 + 1 + 3 + 5
