"""The judge against a small server that speaks the same protocol."""

import csv
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lapha.evaluation.grading import Verdict
from lapha.evaluation.grading.judge import Judge, grade_with_judge
from lapha.evaluation.run_folder import read_config

pytest.importorskip("httpx", reason="needs lapha[llm]")


@pytest.fixture
def server():
    """Says CORRECT where both answers mean cats, and breaks in the ways that servers do."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = request["messages"][0]["content"]
            asked.append((content, self.headers.get("Authorization"), request["model"]))
            gold, prediction = content.split("Reference answer: ")[1].split("\nStudent's answer: ")
            word = {"broken": None, "vague": "Perhaps."}.get(
                prediction, "CORRECT" if "cat" in prediction else "INCORRECT."
            )
            body = b"{}" if word is None else json.dumps({"choices": [{"message": {"content": word}}]}).encode()
            self.send_response(500 if prediction == "down" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            assert gold == "a feline"

        def log_message(self, *arguments):
            """Quiet."""

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}/v1/", asked
    service.shutdown()
    service.server_close()


def pairs(*predictions):
    return [(prediction, "a feline") for prediction in predictions]


def test_verdicts_are_cached_on_disk_and_marked(server, tmp_path):
    url, asked = server
    judge = Judge(url, "wise", tmp_path / "judge.jsonl", key="secret")
    first = judge.verdicts(pairs("a cat", "a dog", "a cat"))
    assert [(v.correct, v.method) for v in first] == [(True, "judge"), (False, "judge"), (True, "judge")]
    assert len(asked) == 2
    assert {authorisation for _, authorisation, _ in asked} == {"Bearer secret"}
    judge.close()
    again = Judge(url, "wise", tmp_path / "judge.jsonl")
    assert [v.correct for v in again.verdicts(pairs("a dog", "a cat"))] == [False, True]
    assert len(asked) == 2
    again.close()
    other = Judge(url, "another model", tmp_path / "judge.jsonl")
    other.verdicts(pairs("a cat"))
    assert len(asked) == 3
    other.close()


def test_a_judge_that_fails_leaves_the_answer_ungradable(server, tmp_path):
    url, _ = server
    judge = Judge(url, "wise", tmp_path / "judge.jsonl")
    for verdict in judge.verdicts(pairs("down", "broken", "vague")):
        assert verdict.correct is None
        assert verdict.method == "ungradable"
        assert verdict.detail.startswith("the judge: ")
    judge.close()
    assert (tmp_path / "judge.jsonl").read_text() == ""
    dead = Judge("http://127.0.0.1:9/v1", "wise", tmp_path / "judge.jsonl")
    assert dead.verdicts(pairs("a cat"))[0].correct is None
    dead.close()


def test_only_what_nothing_else_could_decide_is_judged(server, tmp_path):
    url, asked = server
    judge = Judge(url, "wise", tmp_path / "judge.jsonl")
    verdicts = [
        Verdict(True, "string"),
        Verdict(False, "math"),
        Verdict(False, "string"),
        Verdict(None, "ungradable"),
        Verdict(False, "choice"),
        Verdict(False, "missing"),
    ]
    found = grade_with_judge(verdicts, pairs("a cat", "cat 1", "cat 2", "cat 3", "cat 4", "cat 5"), judge)
    judge.close()
    assert [v.method for v in found] == ["string", "math", "judge", "judge", "choice", "missing"]
    assert len(asked) == 2


def test_the_judge_belongs_to_the_run(server, tmp_path, capsys):
    """It may be added to a graded run, which is said; it cannot be forgotten or changed. Its address may change."""
    pytest.importorskip("typer", reason="needs lapha[llm]")
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    from lapha.cli import run

    url, asked = server
    data, predictions, out = tmp_path / "data.jsonl", tmp_path / "a.pred.jsonl", tmp_path / "run"
    data.write_text('{"question": "Who?", "answer": "a feline"}\n')
    predictions.write_text('{"question": "Who?", "completion": "<answer>the big cat</answer>"}\n')
    command = ["eval", "--data", str(data), "--predictions", str(predictions), "--out", str(out), "--graders", "1"]

    def row():
        (found,) = csv.DictReader((out / "results.csv").open())
        return found["accuracy"], found["judged"]

    assert run(command) == 0
    assert row() == ("0.000000", "0")
    capsys.readouterr()
    assert run([*command, "--judge-url", url, "--judge-model", "wise"]) == 0
    assert "this run was graded without a judge; now wise judges" in " ".join(capsys.readouterr().err.split())
    assert row() == ("1.000000", "1")
    assert read_config(out)["settings"]["judge"] == "wise"
    for changed in ([], ["--judge-url", url, "--judge-model", "other"]):
        assert run([*command, *changed]) == 2
        assert "judge was 'wise' and is" in capsys.readouterr().err
        assert row() == ("1.000000", "1")
    assert run([*command, "--judge-url", url.rstrip("/"), "--judge-model", "wise"]) == 0
    assert "graded without a judge" not in capsys.readouterr().err
    assert len(asked) == 1
    assert run([*command, "--force"]) == 0  # beside the judgements, which are kept
    assert row() == ("0.000000", "0")
    assert run([*command, "--judge-url", url, "--judge-model", "wise"]) == 0
    assert len(asked) == 1
