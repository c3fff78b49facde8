import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from killable_run import QUESTIONS, evaluate

from lapha.evaluation.folders import JsonLines, prepare_folder, read_json_lines
from lapha.evaluation.modes import MODES
from lapha.evaluation.page import write_run_report
from lapha.evaluation.results import read_graded
from lapha.evaluation.run_folder import read_config, read_outcomes
from lapha.search import SearchResult
from lapha.viz import read_page


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, evaluate(folder)


def test_a_run_leaves_everything_that_was_promised(finished):
    folder, graded = finished
    names = {path.name for path in folder.iterdir()}
    tables = {"results.csv", "results.md", "results.json"}
    assert names == {"config.yaml", "rollouts.jsonl", "trees", "completions", "grades.jsonl"} | tables
    config = read_config(folder)
    assert config["settings"] == {"simulations": 6, "questions": 8, "nested": {"seed": 1}}
    assert {"lapha", "commit", "python", "torch"} <= set(config["environment"])
    assert len(list((folder / "trees").glob("*.json"))) == 8
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["mode"] for row in rows] == list(MODES)
    assert all(int(row["problems"]) == 8 for row in rows)
    assert "seconds" not in rows[0]
    value = graded.scores["value"]
    assert float(rows[2]["accuracy"]) == pytest.approx(value.accuracy.mean, abs=1e-6)
    assert value.ungradable + value.accuracy.count == 8


def test_equal_questions_are_asked_once_and_recorded_at_each_place(finished):
    folder, _ = finished
    outcomes = read_outcomes(folder)
    assert len(outcomes) == len(MODES) * len(QUESTIONS)
    for mode in MODES:
        twins = [outcome for outcome in outcomes if outcome.mode == mode and outcome.index in (2, 7)]
        assert twins[0].answers == twins[1].answers


def test_a_saved_tree_is_the_one_that_gave_the_answer(finished):
    folder, _ = finished
    for outcome in read_outcomes(folder):
        if outcome.mode == "value":
            result = SearchResult.load(folder / "trees" / f"{outcome.index:05d}.json")
            assert result.question == QUESTIONS[outcome.index]
            assert result.answer == outcome.answer
            assert result.tree.sampled_tokens == outcome.tokens


def test_a_finished_run_asks_nothing_again(finished):
    folder, _ = finished
    before = (folder / "rollouts.jsonl").read_bytes(), (folder / "results.csv").read_bytes()
    asked = []
    evaluate(folder, on_outcome=asked.append)
    assert not asked
    assert before == ((folder / "rollouts.jsonl").read_bytes(), (folder / "results.csv").read_bytes())


def test_killed_at_twenty_random_moments_and_resumed_it_gives_the_same_results(finished, tmp_path):
    folder, _ = finished
    script = Path(__file__).with_name("kill_often.py")
    done = subprocess.run([sys.executable, script, tmp_path, "20"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert len(written) == 20
    assert sum(0 < lines < len(MODES) * len(QUESTIONS) for lines in written) >= 12, "hardly a kill came in the middle"
    results = [(run / "results.csv").read_bytes() for run in tmp_path.iterdir()]
    assert len(results) >= 1
    assert set(results) == {(folder / "results.csv").read_bytes()}


def test_a_kill_before_the_settings_were_written_is_no_obstacle(tmp_path):
    """What it leaves are half a config and the file that proves that the folder can be written to."""
    for name in (".config.yaml.k3xy", ".probe-ab12"):
        (tmp_path / name).write_text("sett")
    evaluate(tmp_path, questions=QUESTIONS[:1])
    assert (tmp_path / "results.csv").is_file()


def test_a_line_that_a_kill_cut_off_is_asked_again(finished, tmp_path):
    folder, _ = finished
    target = tmp_path / "run"
    evaluate(target)
    lines = (target / "rollouts.jsonl").read_bytes()
    (target / "rollouts.jsonl").write_bytes(lines[:-40])
    asked = []
    evaluate(target, on_outcome=asked.append)
    assert len(asked) == 1
    assert (target / "results.csv").read_bytes() == (folder / "results.csv").read_bytes()
    assert len(read_json_lines(target / "rollouts.jsonl")) == len(MODES) * len(QUESTIONS)


class Outage:
    """From the n-th request on the server is gone."""

    def __init__(self, after):
        self.left = after

    def __call__(self, request):
        self.left -= 1
        return ConnectionError("the server is gone") if self.left < 0 else None


@pytest.mark.parametrize("after", [0, 30, 100])
def test_after_an_outage_the_same_command_asks_what_failed_and_nothing_else(finished, tmp_path, after):
    """100 is in the middle of the searches; the chains that matched a cut search are asked anew, too."""
    folder, _ = finished
    target = tmp_path / "run"
    evaluate(target, fail=Outage(after))
    failed = [outcome for outcome in read_outcomes(target) if outcome.error]
    assert failed
    if after == 30:
        assert len(failed) < len(MODES) * len(QUESTIONS)
    good = {(o.mode, o.index) for o in read_outcomes(target) if o.error is None}
    asked = []
    graded = evaluate(target, on_outcome=asked.append)
    assert {(o.mode, o.index) for o in asked} == {(o.mode, o.index) for o in failed}
    assert not good & {(o.mode, o.index) for o in asked}
    assert all(outcome.error is None for outcomes in graded.outcomes.values() for outcome in outcomes)
    assert (target / "results.csv").read_bytes() == (folder / "results.csv").read_bytes()
    for index in range(len(QUESTIONS)):
        tree = SearchResult.load(target / "trees" / f"{index:05d}.json")
        assert tree.tree.tokens == SearchResult.load(folder / "trees" / f"{index:05d}.json").tree.tokens
    asked.clear()
    evaluate(target, on_outcome=asked.append)
    assert not asked


def test_chains_that_matched_a_search_which_failed_are_asked_again_once_it_went_through(finished, tmp_path):
    """The search of one question fails at its first step and its chains do not: they got no tokens to speak of."""
    folder, _ = finished
    target = tmp_path / "run"
    question = [*QUESTIONS[4].encode()]

    def fail(request):
        tokens = list(request.state.token_ids)
        return ConnectionError("gone") if request.n > 1 and tokens[1 : 1 + len(question)] == question else None

    evaluate(target, fail=fail)
    assert {(o.mode, o.index) for o in read_outcomes(target) if o.error} == {("value", 4)}
    asked = []
    evaluate(target, on_outcome=asked.append)
    assert [(o.mode, o.index) for o in asked] == [("value", 4), ("majority", 4), ("best-of-n", 4)]
    assert (target / "results.csv").read_bytes() == (folder / "results.csv").read_bytes()


def test_what_fails_again_is_counted_once(tmp_path):
    target = tmp_path / "run"
    for _ in range(2):
        graded = evaluate(target, questions=QUESTIONS[:2], fail=Outage(0))
    assert {mode: score.failed for mode, score in graded.scores.items()} == dict.fromkeys(MODES, 2)
    assert len(read_outcomes(target)) == 2 * len(MODES)


def test_answers_that_are_newer_than_the_grades_cannot_be_reported(tmp_path):
    """Cut off after what had failed was answered, and before it was graded."""
    target = tmp_path / "run"
    evaluate(target, questions=QUESTIONS[:2], fail=Outage(0))
    grades = (target / "grades.jsonl").read_bytes()
    evaluate(target, questions=QUESTIONS[:2])
    (target / "grades.jsonl").write_bytes(grades)
    with pytest.raises(ValueError, match=r"run: expected a run that has been graded .*, got .* answers that were not"):
        read_graded(target)


def test_changed_settings_refuse_to_resume_and_name_the_difference(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"out: .*simulations was 6 and is 7.* --force"):
        evaluate(folder, simulations=7)


def test_force_starts_anew(tmp_path):
    target = tmp_path / "run"
    evaluate(target, questions=QUESTIONS[:2])
    asked = []
    evaluate(target, questions=QUESTIONS[:2], simulations=4, force=True, on_outcome=asked.append)
    assert len(asked) == 2 * len(MODES)
    assert read_config(target)["settings"]["simulations"] == 4


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"out: expected an empty folder, or a run's own, got .*thesis\.tex"):
        evaluate(tmp_path)


def test_an_unwritable_folder_is_found_out_first(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="out: expected a folder that can be written to"):
        prepare_folder(tmp_path / "file" / "run")


def test_the_report_of_one_run_and_of_two(finished, tmp_path):
    folder, _ = finished
    other = tmp_path / "other"
    evaluate(other, simulations=3)
    page = read_page(write_run_report([folder, other], tmp_path / "report.html"))["manifest"]
    headings = [section["heading"] for section in page["sections"]]
    for heading in ("Results", "Paired differences", "Accuracy against cost", "How far v̂ can be trusted"):
        assert heading in headings
    assert {tree["run"] for tree in page["trees"]} == {0, 1}
    alone = read_page(write_run_report([folder], tmp_path / "one.html", trees=1))
    assert "Paired differences" not in [section["heading"] for section in alone["manifest"]["sections"]]
    assert len(alone["manifest"]["trees"]) == 1
    assert len(alone["problems-0"]["question"]) == alone["manifest"]["runs"][0]["problems"]


def test_a_run_that_was_not_graded_cannot_be_reported(tmp_path):
    with pytest.raises(ValueError, match="run: expected a run that has been graded"):
        read_graded(tmp_path)
    with pytest.raises(ValueError, match="runs: expected at least one folder"):
        write_run_report([], tmp_path / "report.html")


def test_json_lines_survive_a_cut_and_name_a_broken_line(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path)
    lines.write({"a": float("nan"), "b": (1, 2)})
    lines.write({"c": 3})
    lines.close()
    assert read_json_lines(path) == [{"a": None, "b": [1, 2]}, {"c": 3}]
    path.write_bytes(path.read_bytes() + b'{"d": 4')
    assert read_json_lines(path) == [{"a": None, "b": [1, 2]}, {"c": 3}]
    path.write_text('{"a": 1}\n{"b": \n{"c": 3}\n')
    with pytest.raises(ValueError, match="in line 2"):
        read_json_lines(path)
