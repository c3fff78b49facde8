"""Commands in this process; what a shell sees is in test_process.py."""

import csv
import json
import os
import re
import signal
import threading
import time

import pytest
from scripted_model import save_scripted_model

import lapha.evaluation.modes
import lapha.search
from lapha.cli import COMMANDS, run
from lapha.search import SearchResult
from lapha.viz import read_page

pytest.importorskip("typer", reason="needs lapha[llm]")
pytest.importorskip("transformers", reason="needs lapha[llm]")

QUESTION = "Walk from 14 to 62 in at most 8 moves of +1 -1 +10 -10, avoiding 13 24 25 44 57 60 71 90"


def test_help_lists_every_command(capsys):
    assert run([]) == 0
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", listed, re.MULTILINE), name
        assert run([name, "--help"]) == 0


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    code = run(
        ["search", "--simulations", "6", "--save", str(folder / "t.json"), "--plot", str(folder / "t.html"), QUESTION]
    )
    return folder, code


def test_search_saves_a_tree_that_loads_and_draws_it(searched):
    folder, code = searched
    assert code == 0
    result = SearchResult.load(folder / "t.json")
    assert result.question == QUESTION
    assert len(result.tree) > 6
    assert len(result.latents) == len(result.tree)
    data = read_page(folder / "t.html")["tree-0"]
    assert data["question"] == QUESTION
    assert len(data["parent"]) == len(result.tree)
    assert (data["potential"] is None) == (result.answer is None)  # V only where an answer was chosen


def test_search_prints_the_answer_alone_on_standard_output(capsys):
    assert run(["search", "--simulations", "6", "--seed", "3", QUESTION]) == 0
    out = capsys.readouterr().out.strip()
    assert re.fullmatch(r"[+-]\d+( [+-]\d+)*|\(no leaf answers\)", out)


def test_search_shows_the_tree_where_it_is_wanted(capsys):
    assert run(["search", "--simulations", "6", "--seed", "3", "--show", "tree", QUESTION]) == 0
    err = capsys.readouterr().err
    assert err.count("visits]") > 10
    assert run(["search", "--simulations", "6", "--seed", "3", "--show", "none", QUESTION]) == 0
    assert "visits]" not in capsys.readouterr().err
    assert run(["search", "--show", "all", QUESTION]) == 2


def test_search_is_reproducible(searched, tmp_path):
    folder, _ = searched
    run(["search", "--simulations", "6", "--save", str(tmp_path / "t.json"), QUESTION])
    first, second = (SearchResult.load(path / "t.json") for path in (folder, tmp_path))
    assert first.tree.tokens == second.tree.tokens
    assert first.answer == second.answer


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C, even where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    """Ctrl-C soon after the search listens for it."""
    default = signal.getsignal(signal.SIGINT)

    def press():
        for _ in range(1000):
            if signal.getsignal(signal.SIGINT) is not default:
                break
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.timeout(120)
def test_ctrl_c_in_a_search_saves_what_plot_draws(tmp_path, capsys, interruptible):
    thread = interrupt()
    save = tmp_path / "t.json"
    assert run(["search", "--simulations", "1000000", "--save", str(save), QUESTION]) == 130
    thread.join()
    assert "interrupted: the tree of" in capsys.readouterr().err
    result = SearchResult.load(save)
    assert result.stop_reason == "stopped"
    assert len(result.latents) == len(result.tree) > 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run(["plot", str(save), str(tmp_path / "p.html")]) == 0


def test_plot_draws_a_saved_search(searched, tmp_path, capsys):
    folder, _ = searched
    assert run(["plot", str(folder / "t.json"), str(tmp_path / "p.html")]) == 0
    assert read_page(tmp_path / "p.html")["tree-0"]["question"] == QUESTION
    assert capsys.readouterr().out.strip() == str(tmp_path / "p.html")
    assert run(["plot", str(folder / "t.json"), str(tmp_path / "p.png")]) == 2
    assert "a file ending in .html" in capsys.readouterr().err


def test_env_names_versions(capsys):
    assert run(["env"]) == 0
    out = capsys.readouterr().out
    for name in ("lapha", "python", "torch", "transformers"):
        assert re.search(rf"^{name} +\S", out, re.MULTILINE)


def test_eval_runs_all_modes_resumes_and_reports(tmp_path, capsys):
    command = [
        "eval", "--model", "tiny", "--data", "tiny", "--modes", "single,react,majority,best-of-n,value",
        "--limit", "3", "--simulations", "4", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    assert run(command) == 0
    table = capsys.readouterr().out
    assert "no value head" not in table
    for mode in ("single", "react", "value", "majority", "best-of-n"):
        assert mode in table
    rollouts = (tmp_path / "run" / "rollouts.jsonl").read_bytes()
    assert rollouts.count(b"\n") == 15
    assert (tmp_path / "run" / "report.html").is_file()
    assert run(command) == 0
    assert (tmp_path / "run" / "rollouts.jsonl").read_bytes() == rollouts
    assert run([*command, "--seed", "5"]) == 2
    assert "seed was 0 and is 5" in capsys.readouterr().err
    assert run(["report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html"), "--trees", "1"]) == 0
    assert len(read_page(tmp_path / "r.html")["manifest"]["trees"]) == 1


def test_diagnose_reads_the_trees_of_a_run(tmp_path, capsys):
    command = ["eval", "--modes", "value", "--limit", "2", "--simulations", "8", "--graders", "1"]
    assert run([*command, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert run(["diagnose", str(tmp_path / "run"), "--json", str(tmp_path / "numbers.json")]) == 0
    assert "V orders siblings" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["trees"] == 2
    assert numbers["nodes"] > 2 * 8
    assert 0 < numbers["radius"] < 2
    assert run([*command, "--no-trees", "--out", str(tmp_path / "bare")]) == 0
    assert run(["diagnose", str(tmp_path / "bare")]) == 2
    assert "run: expected trees of mode 'value'" in capsys.readouterr().err


def test_shards_are_merged(tmp_path, capsys):
    parts = [str(tmp_path / name) for name in "ab"]
    for number, part in enumerate(parts, 1):
        command = [
            "eval",
            "--modes",
            "single",
            "--limit",
            "3",
            "--shard",
            f"{number}/2",
            "--graders",
            "1",
            "--out",
            part,
        ]
        assert run(command) == 0
    assert run(["merge", parts[0], "--out", str(tmp_path / "whole")]) == 2
    assert "each of the shards 1/2 to 2/2 once, got 1/2" in capsys.readouterr().err
    assert run(["merge", *parts, "--out", str(tmp_path / "whole")]) == 0
    assert "single" in capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "whole" / "results.csv").open())
    assert row["problems"] == "3"
    # the whole is a run like any other: the command without --shard finds nothing to do
    rollouts = (tmp_path / "whole" / "rollouts.jsonl").read_bytes()
    assert run(["eval", "--modes", "single", "--limit", "3", "--graders", "1", "--out", str(tmp_path / "whole")]) == 0
    assert (tmp_path / "whole" / "rollouts.jsonl").read_bytes() == rollouts


def test_eval_grades_a_file_against_its_own_answers(tmp_path, capsys):
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    data = tmp_path / "walks.jsonl"
    rows = [{"question": QUESTION, "answer": "+10 +10 +10 +10 +10 -1 -1"}, {"question": QUESTION, "answer": "1"}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = run(["eval", "--data", str(data), "--modes", "react", "--simulations", "4", "--out", str(tmp_path / "run")])
    assert code == 0
    grades = [json.loads(line) for line in (tmp_path / "run" / "grades.jsonl").read_text().splitlines()]
    assert {grade["index"] for grade in grades} <= {0, 1}
    assert all(grade["method"] != "exact" for grade in grades)


def test_eval_says_so_where_no_value_head_ranks_the_chains(tmp_path, capsys):
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    model = save_scripted_model(tmp_path / "model", ["six times seven</think>\n<answer>42</answer>"])
    data, out = tmp_path / "data.jsonl", tmp_path / "run"
    data.write_text(json.dumps({"question": "What is 6 times 7?", "answer": "42"}) + "\n")
    command = ["eval", "--model", model, "--data", data, "--modes", "best-of-n", "--samples", 2, "--graders", 1]
    assert run([*map(str, command), "--out", str(out)]) == 0
    note = "best-of-n takes the chain with the highest mean log-probability a token"
    assert note in " ".join(capsys.readouterr().out.split())
    assert note in (out / "results.md").read_text()
    assert note in read_page(out / "report.html")["manifest"]["sections"][0]["text"]
    (row,) = csv.DictReader((out / "results.csv").open())
    assert (row["accuracy"], row["samples"]) == ("1.000000", "2.000000")


def test_search_and_eval_vote_on_values_and_on_the_embedded_problems_on_moves(tmp_path, monkeypatch, capsys):
    """Which rule reaches the searches that the commands run."""
    used = []

    class Noted(lapha.search.Search):
        def __init__(self, *parts, **options):
            super().__init__(*parts, **options)
            used.append(self.canonical)

    monkeypatch.setattr(lapha.search, "Search", Noted)
    monkeypatch.setattr(lapha.evaluation.modes, "Search", Noted)
    model = str(save_scripted_model(tmp_path / "model", ["six times seven</think>\n<answer>42</answer>"]))
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"question": "What is 6 times 7?", "answer": "42"}) + "\n")
    few = ["--modes", "react", "--graders", "1", "--limit", "1"]
    assert run(["eval", *few, "--model", model, "--data", str(data), "--out", str(tmp_path / "a")]) == 0
    assert run(["search", "--simulations", "1", "--model", model, "What is 6 times 7?"]) == 0
    assert len(used) == 2
    for values in used:
        assert values("\\frac12") == values("0.5")
    assert run(["eval", *few, "--out", str(tmp_path / "b")]) == 0
    assert run(["search", "--simulations", "1", QUESTION]) == 0
    assert len(used) == 4
    for moves in used[2:]:
        assert len({moves(walk) for walk in ("+10 -1", "-1 +10", "+1", "1", "0.5", "\\frac12")}) == 6


def test_eval_ends_with_one_and_a_list_if_problems_failed(tmp_path, capsys):
    """One question fills the context; the other is answered and graded all the same."""
    pytest.importorskip("math_verify", reason="needs lapha[llm]")
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": "1"}) + "\n" for q in (QUESTION, "no " * 600)))
    command = ["eval", "--data", data, "--modes", "single", "--graders", "1", "--context-limit", "500"]
    assert run([*map(str, command), "--out", str(tmp_path / "run")]) == 1
    shown = capsys.readouterr().err
    assert "failed: single, problem 1: " in shown
    assert "problem 0: " not in shown
    (row,) = csv.DictReader((tmp_path / "run" / "results.csv").open())
    assert (row["problems"], row["failed"]) == ("2", "1")


def test_demo_measures_trains_and_reports(tmp_path, capsys):
    pytest.importorskip("trl", reason="needs lapha[trl]")
    from lapha.engines import TransformersEngine

    out = tmp_path / "demo"
    assert (
        run(["demo", "--out", str(out), "--problems", "3", "--steps", "2", "--trees", "4", "--simulations", "4"]) == 0
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    phases = [line["phase"] for line in lines]
    assert [phases.count(phase) for phase in ("start", "before", "train", "after", "end")] == [1, 5, 2, 5, 1]
    trained = [line for line in lines if line["phase"] == "train"]
    assert [line["step"] for line in trained] == [1, 2]
    assert all("lapha/leaf_accuracy" in line for line in trained)
    page = read_page(out / "report.html")["manifest"]
    headings = [section["heading"] for section in page["sections"]]
    for heading in ("Accuracy before and after training", "Learning curve", "Accuracy against cost"):
        assert heading in headings
    assert [entry["name"] for entry in page["runs"]] == ["before", "after"]
    assert "lapha/leaf_accuracy" in page["training"][0]["metrics"]
    TransformersEngine.from_pretrained(out / "checkpoint", value_head=out / "checkpoint").close()
    table = capsys.readouterr().out
    assert "best-of-n" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search"], "Missing argument 'question'"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["search", "--simulations", "many", "q"], "simulations: expected an integer >= 1, got 'many'"),
        (["search", "  "], "question: expected text that is not blank"),
        (["search", "--simulations", "0", QUESTION], "simulations: expected an integer >= 1, got 0"),
        (["search", "--breadth", "0", QUESTION], "breadth: expected an integer >= 1, got 0"),
        (["search", "--depth", "0", QUESTION], "depth_limit: expected an integer >= 1, got 0"),
        (["search", "--model", "/nowhere/model", "q"], "name_or_path: expected a folder with a model"),
        (["search", "--tools", "shell", "q"], "tools: expected one of 'none', 'python', got 'shell'"),
        (
            ["search", "--save", "/nowhere/t.json", "q"],
            "path: expected a file in an existing folder, got /nowhere/t.json",
        ),
        (["plot", "/nowhere.json", "/tmp/x.html"], "/nowhere.json: expected a readable file"),
        (["eval", "--modes", "guess"], "modes: expected a list of one of"),
        (["eval", "--modes", "majority"], "samples: expected a number, or mode value to match"),
        (["eval", "--data", "/nowhere.jsonl"], "data: expected an existing file, tiny, or one of math-500"),
        (["eval", "--breadth", "0"], "breadth: expected an integer >= 1, got 0"),
        (["eval", "--depth", "0"], "depth_limit: expected an integer >= 1, got 0"),
        (["eval", "--limit", "0"], "limit: expected an integer >= 1"),
        (["eval", "--shard", "3/2"], "shard: expected i/n with 1 <= i <= n, got 3/2"),
        (["eval", "--judge-url", "http://127.0.0.1:9/v1"], "judge_url: expected none with data 'tiny'"),
        (["eval", "--limit", "1", "--shard", "2/2"], "data: expected at least one problem, got none in this shard"),
        (["report", "/nowhere"], "run: expected the folder of a run (with config.yaml), got /nowhere"),
        (["demo", "--problems", "0"], "problems: expected an integer >= 1, got 0"),
        (["demo", "--out", "/dev/null/demo"], "out: expected a folder that can be written to, got /dev/null/demo"),
    ],
)
def test_bad_input_is_one_line_on_standard_error_and_exit_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("lapha: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir()), "the next try would find a run with other settings"
