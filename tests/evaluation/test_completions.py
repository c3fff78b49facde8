import gzip
import json

import pytest
from killable_run import QUESTIONS, evaluate

from lapha.evaluation import extract_answer
from lapha.evaluation.completions import CompletionWriter, read_completions
from lapha.evaluation.grading import Verdict
from lapha.evaluation.modes import MODES
from lapha.evaluation.regrading import grade_again
from lapha.evaluation.results import grade_run, read_graded
from lapha.evaluation.run_folder import COMPLETIONS, write_problems


def test_every_completion_of_every_mode_is_kept(tmp_path):
    graded = evaluate(tmp_path)
    kept = read_completions(tmp_path)
    assert set(kept) == {(mode, index) for mode in MODES for index in range(len(QUESTIONS))}
    for mode, outcomes in graded.outcomes.items():
        for outcome in outcomes:
            texts = kept[mode, outcome.index]
            if mode in ("single", "react"):
                assert len(texts) == 1
            else:
                assert len(texts) == len(outcome.answers)
            assert all(texts)
            for answer, text in zip(outcome.answers, texts):
                if answer is not None:
                    assert f"answer {answer}" in text or extract_answer(text) == answer or answer in text
    assert kept["value", 2] == kept["value", 7]  # a question that occurs twice


def test_a_sitting_that_was_cut_off_costs_its_last_line_alone(tmp_path):
    killed = []
    for sitting in range(3):
        writer = CompletionWriter(tmp_path)
        for index in range(5):
            writer.add(index, "single", [f"text {sitting} {index} {'ä' * 50}"])
        if sitting == 1:  # killed: no end, and half a block
            killed.append(writer)
            path = tmp_path / COMPLETIONS / "0002.jsonl.gz"
            path.write_bytes(path.read_bytes()[:-5])
        else:
            writer.close()
    found = read_completions(tmp_path)
    assert found["single", 4] == [f"text 2 4 {'ä' * 50}"]
    (tmp_path / COMPLETIONS / "0003.jsonl.gz").unlink()
    found = read_completions(tmp_path)
    assert found["single", 0] == [f"text 1 0 {'ä' * 50}"]
    assert found["single", 4] in ([f"text 0 4 {'ä' * 50}"], [f"text 1 4 {'ä' * 50}"])
    (tmp_path / COMPLETIONS / "0001.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"run: expected completions in .*0001\.jsonl\.gz, got a damaged file"):
        read_completions(tmp_path)


def test_gzip_reads_what_a_finished_sitting_wrote(tmp_path):
    writer = CompletionWriter(tmp_path)
    writer.add(3, "value", ["a", "b"])
    writer.close()
    writer.close()
    [line] = gzip.decompress((tmp_path / COMPLETIONS / "0001.jsonl.gz").read_bytes()).decode().splitlines()
    assert json.loads(line) == {"index": 3, "mode": "value", "texts": ["a", "b"]}
    assert read_completions(tmp_path / "none") == {}


def test_a_run_is_graded_again_by_todays_rules(tmp_path):
    evaluate(tmp_path)
    with pytest.raises(ValueError, match="run: expected a run that keeps its problems"):
        grade_again(tmp_path)
    write_problems(tmp_path, {index: (question, "3") for index, question in enumerate(QUESTIONS)})
    by_hand = {pair: verdict for pair, verdict in read_graded(tmp_path).verdicts.items()}
    judged = next(pair for pair in by_hand if pair[1] not in ("3", "7"))
    grade_run(
        tmp_path, lambda pairs: [Verdict(True, "judge") if pair == judged else Verdict(False, "old") for pair in pairs]
    )
    after, changes = grade_again(tmp_path)
    for (index, answer), verdict in after.verdicts.items():
        if (index, answer) == judged:
            assert verdict == Verdict(True, "judge")
        else:
            assert verdict.correct is (answer == "3")
    assert len(changes) == sum(answer == "3" for _, answer in by_hand)
    assert all("wrong -> right: 3" in line for line in changes)
    assert grade_again(tmp_path)[1] == []
