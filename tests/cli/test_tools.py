"""``--tools python`` from the command line: a model's code runs in the sandbox, each step in its parent's state."""

import os

import pytest

pytest.importorskip("typer", reason="needs lapha[llm]")
pytest.importorskip("transformers", reason="needs lapha[llm]")

from scripted_model import save_scripted_model

from lapha.cli import run
from lapha.search import SearchResult
from sandbox.availability import need_bubblewrap

STEPS = [
    # what only a sandbox refuses, and a variable for the next step
    "try</think>\n```python\ntry:\n    open('/etc/hostname').read()\n    print('ESCAPED')\nexcept Exception as e:\n    print('refused')\nx = 6 * 7\n```",
    "so</think>\n```python\nprint(x + 1)\n```",
    "done</think>\n<answer>43</answer>",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_scripted_model(tmp_path_factory.mktemp("scripted"), STEPS)


def search(model, tmp_path, *options):
    arguments = [
        "search",
        "--model",
        model,
        "--simulations",
        4,
        "--breadth",
        1,
        "--save",
        tmp_path / "t.json",
        *options,
    ]
    assert run([*map(str, arguments), "What is 6 times 7, and 1?"]) == 0
    return SearchResult.load(tmp_path / "t.json")


@pytest.mark.parametrize("sandbox", ["monty", "bubblewrap"])
def test_search_runs_a_models_code_in_the_sandbox(sandbox, model, tmp_path, capsys):
    if sandbox == "bubblewrap":
        need_bubblewrap()
    assert os.path.exists("/etc/hostname")  # outside, the code would print ESCAPED
    result = search(model, tmp_path, "--tools", "python", "--sandbox", sandbox)
    assert capsys.readouterr().out.strip() == "43"
    steps = [result.tree.text[node] for node in result.tree.path(result.node)[1:]]
    assert [step.endswith("</tool_response>") for step in steps] == [True, True, False]
    assert "<tool_response>\nrefused\n</tool_response>" in steps[0]
    assert "<tool_response>\n43\n</tool_response>" in steps[1]  # x came from the step before


def test_without_tools_no_code_runs(model, tmp_path):
    result = search(model, tmp_path)
    text = "\n".join(result.tree.text)
    assert "print(x + 1)" in text
    assert "<tool_response>\n43" not in text
    assert "refused\n</tool_response>" not in text
