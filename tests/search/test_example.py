"""The example that people copy, run on the embedded policy; run again, it repeats nothing."""

import json
import runpy
from pathlib import Path

import pytest

from lapha.tiny import problems, tiny_path

EXAMPLE = Path(__file__).parents[2] / "examples" / "search_jsonl.py"


def strict(line):
    """JSON as all others read it: without NaN."""
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_questions_in_answers_out_and_resumed(tmp_path):
    pytest.importorskip("transformers")
    questions = [problem.question for problem in problems.generate(2, 0, "heldout")]
    questions.insert(1, "no " * 3000)  # longer than the model's context: it fails, and the others are answered
    source, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    main = runpy.run_path(str(EXAMPLE))["main"]
    main(str(tiny_path()), str(tiny_path()), str(source), str(answers))
    rows = [strict(line) for line in answers.read_text().splitlines()]
    assert [row["question"] for row in rows] == questions
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert rows[1]["answer"] is rows[1]["value"] is None
    assert [row["answer"] is None for row in rows] == [row["value"] is None for row in rows]
    trees = (tmp_path / "answers.jsonl.journal" / "results.jsonl").read_bytes()
    main(str(tiny_path()), str(tiny_path()), str(source), str(answers))
    assert [json.loads(line) for line in answers.read_text().splitlines()] == rows
    assert (tmp_path / "answers.jsonl.journal" / "results.jsonl").read_bytes() == trees
