"""`lapha eval` over problems that a function scores, and over data with broken gold answers."""

import json

import pytest

from lapha.cli._grading import Grader
from lapha.evaluation.config import EvalConfig
from lapha.evaluation.data import Selection, load_questions

ROWS = [{"question": "a?", "target": 3}, {"question": "b?", "target": 4}]


def near(answer, record):
    """A score from the answer and a field of the record; nothing for what is no number."""
    return None if not answer.isdigit() else max(0.0, 1 - abs(int(answer) - record["target"]) / 4)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "games.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def grader(path, **options):
    selection = Selection()
    return Grader(str(path), selection, load_questions(path, selection), 1, path.parent, **options)


def test_a_function_scores_answers_in_place_of_gold_answers(data):
    found = grader(data, verifier=near).verdicts([(0, "3"), (0, "5"), (1, "9"), (1, "no")])
    assert [verdict.correct for verdict in found] == [True, True, False, None]
    assert [verdict.method for verdict in found] == ["verifier", "verifier", "verifier", "ungradable"]
    with pytest.raises(ValueError, match="verifier: expected a score from 0 to 1, or None, got 7"):
        grader(data, verifier=lambda answer, record: 7).verdicts([(0, "3")])


def test_it_is_named_in_the_settings(data):
    config = EvalConfig(data=str(data), verifier=near)
    assert config.settings()["verifier"].endswith("test_verifier_option:near")
    with pytest.raises(ValueError, match="verifier: expected none with data 'tiny'"):
        EvalConfig(verifier=near)


def test_broken_gold_answers_are_told_or_refused(data, capsys):
    data.write_text(
        json.dumps({"question": "a?", "answer": ""}) + "\n" + json.dumps({"question": "b?", "answer": "5"}) + "\n"
    )
    grader(data).close()
    assert "games.jsonl: gold answer of problem 0: empty" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"data: expected gold answers that can be matched, got in .*problem 0: empty"):
        grader(data, strict=True)
