"""``lapha eval`` against real vLLM servers: the command in a process of its own, every mode."""

import csv
import json
import subprocess
import sys

import pytest

from lapha.search import SearchResult
from lapha.viz import read_page

MODES = ("single", "react", "value", "majority", "best-of-n")
LIMIT = 6


def evaluate(out, *options):
    command = [
        sys.executable, "-m", "lapha", "eval", "--model", "tiny", "--data", "tiny", "--modes", ",".join(MODES),
        "--limit", LIMIT, "--simulations", 6, "--out", out, *options,
    ]  # fmt: skip
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=1200)


def on_servers(servers):
    urls = f"{servers['first'].url},{servers['second'].url}"
    return ["--server", urls, "--pooling-server", servers["pooling"].url]


@pytest.fixture(scope="module")
def evaluated(servers, tmp_path_factory):
    out = tmp_path_factory.mktemp("eval") / "run"
    return out, evaluate(out, *on_servers(servers))


def rows(out):
    return {row["mode"]: row for row in csv.DictReader((out / "results.csv").open())}


def test_all_modes_are_measured(evaluated):
    out, done = evaluated
    assert done.returncode == 0, done.stderr
    found = rows(out)
    assert tuple(found) == MODES
    for row in found.values():
        assert (row["problems"], row["failed"], row["ungradable"]) == (str(LIMIT), "0", "0")
        assert 0 <= float(row["accuracy"]) <= 1
        assert float(row["tokens"]) > 0
    assert float(found["majority"]["tokens"]) >= float(found["value"]["tokens"])
    page = read_page(out / "report.html")
    assert "Accuracy against cost" in [section["heading"] for section in page["manifest"]["sections"]]


def test_a_search_over_servers_is_whole(evaluated):
    """Trees with latents and values from the pooling server, and the answer that the table counts."""
    out, _ = evaluated
    records = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    for record in records:
        if record["mode"] == "value":
            result = SearchResult.load(out / "trees" / f"{record['index']:05d}.json")
            assert len(result.latents) == len(result.tree) > 6
            assert float(result.latents.radius[1:].min()) > 0
            assert result.answer == record["answer"]


def test_single_is_what_this_process_says(evaluated, tmp_path):
    """Greedy chains: the same answers from vLLM as from transformers."""
    out, _ = evaluated
    here = evaluate(tmp_path / "run", "--modes", "single")
    assert here.returncode == 0, here.stderr
    assert rows(tmp_path / "run")["single"] == rows(out)["single"]


def test_the_run_goes_on_with_the_servers_it_is_given(evaluated, servers):
    """A finished run asks nothing again, on whichever servers; without servers it is another run."""
    out, _ = evaluated
    before = (out / "rollouts.jsonl").read_bytes()
    again = evaluate(out, "--server", servers["second"].url, "--pooling-server", servers["pooling"].url)
    assert again.returncode == 0, again.stderr
    assert (out / "rollouts.jsonl").read_bytes() == before
    other = evaluate(out)
    assert other.returncode == 2
    assert "engine was 'vllm' and is 'transformers'" in other.stderr
