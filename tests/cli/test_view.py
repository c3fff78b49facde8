"""`lapha view`: what it takes, what it writes, what it serves."""

import json
import threading
import urllib.error
import urllib.request

import pytest

from benchmarks.generated_run import generate_run
from lapha.cli import run
from lapha.cli._view_server import make_server
from lapha.engines import ScriptedEngine
from lapha.search import Search, SearchConfig
from lapha.search.journal import read_journal
from lapha.viz import read_page

QUESTIONS = ["first?", "second?"]


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    folder = tmp_path_factory.mktemp("view") / "journal"
    search = Search(ScriptedEngine(answer_rate=0.4), config=SearchConfig(simulations=4, breadth=3))
    return folder, list(search.run(QUESTIONS, journal=folder))


def manifest_of(path):
    return read_page(path)["manifest"]


def test_a_journal_is_read_without_being_changed(journal, tmp_path, capsys):
    folder, results = journal
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(["view", str(folder), "--out", str(tmp_path / "v.html")]) == 0
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    page = read_page(tmp_path / "v.html")
    assert sorted(page[tree["blob"]]["question"] for tree in page["manifest"]["trees"]) == sorted(QUESTIONS)
    assert [result.tree.tokens for result in read_journal(folder, limit=1)] == [
        next(iter(read_journal(folder))).tree.tokens
    ]
    assert {len(result.tree) for result in read_journal(folder)} == {len(result.tree) for result in results}


def test_a_cut_last_line_is_left_out(journal, tmp_path):
    folder, _ = journal
    copy = tmp_path / "journal"
    (copy / "latents").mkdir(parents=True)
    for path in folder.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(folder)).write_bytes(path.read_bytes())
    whole = (copy / "results.jsonl").read_bytes()
    (copy / "results.jsonl").write_bytes(whole[:-20])
    assert len(list(read_journal(copy))) == 1
    (copy / "results.jsonl").write_bytes(b"x" + whole)
    with pytest.raises(ValueError, match="damaged line 1"):
        list(read_journal(copy))


def test_a_saved_search_goes_beside_itself(journal, tmp_path, capsys):
    _, results = journal
    results[0].save(tmp_path / "t.json")
    assert run(["view", str(tmp_path / "t.json")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "t.html")
    assert len(manifest_of(tmp_path / "t.html")["trees"]) == 1


def test_runs_are_compared(tmp_path):
    for name in ("a", "b"):
        generate_run(tmp_path / name, problems=6, simulations=3, modes=["single", "value"])
    assert run(["view", str(tmp_path / "a"), str(tmp_path / "b"), "--trees", "2"]) == 0
    page = manifest_of(tmp_path / "a" / "view.html")
    assert [entry["name"] for entry in page["runs"]] == ["a", "b"]
    assert len(page["trees"]) == 4
    assert {(c["base"], c["other"]) for c in page["comparisons"]} == {(0, 1), (1, 0)}


def test_training_runs_stand_side_by_side_with_their_trees(journal, tmp_path):
    _, results = journal
    for name, loss in (("one", 0.5), ("two", 0.25)):
        checkpoint = tmp_path / name / "checkpoint-20"
        checkpoint.mkdir(parents=True)
        history = [{"step": 10, "loss": 1.0, "epoch": 0.1}, {"step": 20, "loss": loss, "lapha/pass_at_1": 0.5}]
        (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    kept = tmp_path / "one" / "trees" / "step-000010"
    kept.mkdir(parents=True)
    results[0].save(kept / "00000.json")
    out = tmp_path / "v.html"
    assert run(["view", str(tmp_path / "one"), str(tmp_path / "two" / "checkpoint-20"), "--out", str(out)]) == 0
    page = manifest_of(out)
    metrics = {entry["name"]: entry["metrics"] for entry in page["training"]}
    assert metrics["one"]["loss"] == {"x": [10, 20], "y": [1.0, 0.5]}
    assert metrics["checkpoint-20"]["loss"]["y"] == [1.0, 0.25]
    assert metrics["one"]["lapha/pass_at_1"] == {"x": [20], "y": [0.5]}
    assert [tree["step"] for tree in page["trees"]] == [10]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere", "what: expected an existing file or folder"),
        (lambda folder: folder, "what: expected a run of lapha eval, a saved search"),
    ],
)
def test_bad_input_is_named(make, message, tmp_path, capsys):
    assert run(["view", str(make(tmp_path))]) == 2
    assert message in capsys.readouterr().err


def test_the_server_answers_for_its_page_alone():
    with make_server("<p>page</p>", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]

        def get(path, host=f"127.0.0.1:{port}"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, b""

        assert get("/") == (200, b"<p>page</p>")
        assert get("/", f"localhost:{port}")[0] == 200
        assert get("/etc/passwd")[0] == 404
        assert get("/", "evil.example")[0] == 403
        server.shutdown()
