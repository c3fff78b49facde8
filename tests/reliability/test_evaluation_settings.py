"""A run's folder says everything that decides its outcomes, with nothing left open, and is refused to any other run."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from test_options import COMPANIONS, plain_sample

from lapha._options import build, options_of
from lapha.cli import run
from lapha.evaluation.config import EvalConfig
from lapha.evaluation.grading.judge import Judge
from lapha.evaluation.run_folder import RunFolder, read_config
from lapha.latent import ValueHead
from lapha.search import SearchConfig
from lapha.tiny import tiny_path

DECIDING = [one for one in options_of(EvalConfig) if not one.runtime]


def nulls(value, path=""):
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in nulls(inner, f"{path}.{name}")]
    return [path] if value is None else []


@pytest.mark.parametrize("option", DECIDING, ids=lambda one: one.name)
def test_every_setting_that_decides_results_is_written_down_and_compared(option, tmp_path):
    companions = COMPANIONS.get(option.name, {})
    RunFolder(tmp_path, EvalConfig().settings()).close()
    written = read_config(tmp_path)["settings"]
    assert option.name in written
    assert nulls(written) == []
    other = build(EvalConfig, {**companions, option.name: plain_sample(option)})
    with pytest.raises(ValueError, match=rf"out: expected the settings .* got others: .*{option.name}"):
        RunFolder(tmp_path, other.settings())
    RunFolder(tmp_path, EvalConfig().settings()).close()


def lapha(*arguments):
    return run(["eval", "--model", "tiny", "--data", "tiny", "--modes", "single", "--limit", "2", *map(str, arguments)])


def test_a_run_says_which_model_and_environment_it_was(tmp_path, capsys):
    out = tmp_path / "run"
    assert lapha("--out", out) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert nulls(config["settings"]) == nulls(config["identity"]) == []
    assert {"engine", "environment", "plain_environment", "best_by"} == set(config["identity"])
    assert re.fullmatch("[0-9a-f]{32}", config["identity"]["engine"]["model"]["weights"])
    assert not (out / ".lock").exists()
    before = (out / "rollouts.jsonl").read_bytes()
    assert lapha("--out", out) == 0
    assert (out / "rollouts.jsonl").read_bytes() == before
    # the record itself is a configuration
    assert run(["eval", "--config", str(out / "config.yaml"), "--out", str(out)]) == 0


def test_another_head_under_the_same_name_is_refused(tmp_path, capsys):
    out, head = tmp_path / "run", ValueHead.from_pretrained(tiny_path())
    head.save_pretrained(tmp_path / "head")
    assert lapha("--out", out, "--value-head", tmp_path / "head") == 0
    head.linear.bias.data += 1
    head.save_pretrained(tmp_path / "head")
    capsys.readouterr()
    assert lapha("--out", out, "--value-head", tmp_path / "head") == 2
    told = capsys.readouterr().err
    assert "out: expected the model and the environment that the run in" in told
    assert "engine.value_head.weights was" in told


def test_a_name_with_markup_is_printed_as_it_is(tmp_path, capsys):
    for name in ("o[/b]", "mk[out]", "[red]x", ":smile:"):
        assert lapha("--out", tmp_path / name) == 0
        told = capsys.readouterr()
        assert name in "".join((told.out + told.err).split())


def test_the_judge_is_asked_again_where_anything_in_the_question_differs(tmp_path, monkeypatch):
    pytest.importorskip("httpx")
    asked = []

    def judge(url="http://one/v1", model="judge"):
        made = Judge(url, model, tmp_path / "judge.jsonl")
        made._ask = lambda pair: (asked.append((url, model, *pair)), (True, ""))[1]
        return made

    def ask(made, *pairs):
        try:
            made.verdicts(list(pairs))
        finally:
            made.close()
        return len(asked)

    assert ask(judge(), ("a", "b")) == 1
    assert ask(judge(), ("a", "b")) == 1
    assert ask(judge(url="http://two/v1"), ("a", "b")) == 2
    assert ask(judge(model="other"), ("a", "b")) == 3
    assert ask(judge(), ("b", "a")) == 4
    monkeypatch.setattr(sys.modules[Judge.__module__], "_PROMPT", "Decide anew: {gold} {prediction}")
    assert ask(judge(), ("a", "b")) == 5
    assert len([json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]) == 5


def test_a_second_process_is_refused_by_name_and_a_stale_lock_is_taken_over(tmp_path):
    import subprocess

    held = RunFolder(tmp_path, {"seed": 1})
    with pytest.raises(
        ValueError, match=r"expected a run's folder that no other process has open, got one held by process \d+"
    ):
        RunFolder(tmp_path, {"seed": 1})
    held.close()
    code = (
        "import os, signal, sys\nfrom lapha.evaluation.run_folder import RunFolder\n"
        f"made = RunFolder({str(tmp_path)!r}, {{'seed': 1}})\nprint(os.getpid(), flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"process {done.stdout.strip()} on" in (tmp_path / ".lock").read_text()
    RunFolder(tmp_path, {"seed": 1}).close()
    assert not (tmp_path / ".lock").exists()


def test_settings_of_a_search_hold_no_open_questions():
    assert set(SearchConfig().to_dict()) >= {"simulations", "sampling", "prune"}
