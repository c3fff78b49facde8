"""The example that people copy, run on the embedded policy; run again, it repeats nothing."""

import json
import runpy
from pathlib import Path

import pytest

from lapha.tiny import problems, tiny_path

EXAMPLE = Path(__file__).parents[2] / "examples" / "search_jsonl.py"


def test_questions_in_answers_out_and_resumed(tmp_path):
    pytest.importorskip("transformers")
    questions = [problem.question for problem in problems.generate(2, 0, "heldout")]
    source, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    main = runpy.run_path(str(EXAMPLE))["main"]
    main(str(tiny_path()), str(tiny_path()), str(source), str(answers))
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["question"] for row in rows] == questions
    trees = (tmp_path / "answers.jsonl.journal" / "results.jsonl").read_bytes()
    main(str(tiny_path()), str(tiny_path()), str(source), str(answers))
    assert [json.loads(line) for line in answers.read_text().splitlines()] == rows
    assert (tmp_path / "answers.jsonl.journal" / "results.jsonl").read_bytes() == trees
