import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))

from killable_run import QUESTIONS, evaluate

from lapha.cli import run
from lapha.evaluation.run_folder import write_problems


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shown") / "run"
    evaluate(path)
    write_problems(path, {index: (question + " [/b] of text", "3") for index, question in enumerate(QUESTIONS)})
    return path


def test_the_list_names_every_problem(folder, capsys):
    assert run(["show", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["problem", "single", "react", "value", "majority", "best-of-n", "question"]
    assert [line.split()[0] for line in lines[1:]] == [str(index) for index in range(len(QUESTIONS))]
    assert "[/b] of text" in lines[1]  # what is not ours is no markup


def test_a_problem_shows_what_was_written_for_it(folder, capsys):
    assert run(["show", str(folder), "2", "--mode", "majority"]) == 0
    shown = capsys.readouterr().out
    assert "question 2 [/b] of text" in shown
    assert "gold answer: 3" in shown
    assert "== majority:" in shown
    assert "-- 1 of " in shown
    assert "== value" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["99"], "problem: expected the number of a problem of this run, got 99"),
        (["--mode", "guess"], "mode: expected one of single, react, value, majority, best-of-n, got guess"),
    ],
)
def test_what_is_not_there_is_said(folder, arguments, message, capsys):
    assert run(["show", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_grade_is_a_command(folder, capsys):
    assert run(["grade", str(folder)]) in (0, 1)
    assert "verdicts are others now" in capsys.readouterr().err
