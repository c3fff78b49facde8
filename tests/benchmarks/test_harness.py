"""The benchmark harness: suites run on tiny shapes, records are complete, ratios are of calls side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import suite_names
from benchmarks.__main__ import main, parser
from benchmarks.data import relative_error, tree_latents
from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.memory import PeakMemory
from benchmarks.plots import plot_records
from benchmarks.records import read_records, run_facts
from benchmarks.report import table

CPU = torch.device("cpu")


def session(output: Path, repeats: int = 3) -> Session:
    return Session("test", CPU, repeats, 1.0, "", output, run_facts(CPU))


def test_suites_are_found_by_name() -> None:
    assert {"distance", "nearest", "knn", "pooling", "tiles"} <= set(suite_names())
    assert "SUITE" in parser().format_usage()


def test_help_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for word in ("nearest", "--sizes smoke", "ceiling", "plot"):
        assert word in done.stdout


@pytest.mark.parametrize("suite", ["distance", "nearest", "knn", "pooling"])
def test_smoke(suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, picture = tmp_path / "results.jsonl", tmp_path / "plot.svg"
    arguments = [suite, "--device", "cpu", "--sizes", "smoke", "--repeats", "2", "--only", "lapha"]
    assert main([*arguments, "--output", str(output), "--plot", str(picture)]) == 0
    records = read_records(output)
    ours = [record for record in records if record["name"].startswith("lapha")]
    assert ours
    for record in ours:
        assert {"commit", "versions", "device_name", "dtype", "shape", "median_ms", "p20_ms", "p80_ms"} <= set(record)
        assert record["p20_ms"] <= record["median_ms"] <= record["p80_ms"]
        assert record["relative_error"] < (3e-2 if "bf16" in record["name"] else 2e-6)
        assert all(ratio["time_ratio"] > 0 for ratio in record["against"].values())
    assert picture.read_text().count("<svg") == 1
    assert "lapha torch" in capsys.readouterr().out


def test_ratio_to_the_ceiling(tmp_path: Path) -> None:
    def run(seconds: float) -> None:
        time.sleep(seconds)

    case = Case(
        {"N": 300},
        "float32",
        [
            Contestant("fast", lambda: run(0.01), flops=1e6, ceiling=True),
            Contestant("slow", lambda: run(0.03), flops=1e6),
            Skipped("absent", "not installed"),
        ],
    )
    fast, slow, absent = session(tmp_path / "r.jsonl", repeats=7).measure(case)
    assert fast["is_ceiling"]
    assert slow["against"]["fast"]["paired_time_ratio"] == pytest.approx(3, rel=0.6)
    assert slow["against"]["fast"]["share"] == pytest.approx(1 / slow["against"]["fast"]["time_ratio"])
    assert absent["skipped"] == "not installed"
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[2])["skipped"] == "not installed"
    assert "skipped: not installed" in table([fast, slow, absent])


def test_out_of_memory_is_reported_as_skipped(tmp_path: Path) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("no room")

    (record,) = session(tmp_path / "r.jsonl").measure(Case({"N": 1}, "float32", [Contestant("greedy", fail)]))
    assert record["skipped"] == "out of memory: no room"


def test_peak_memory_of_the_process() -> None:
    with PeakMemory(CPU) as peak:
        block = torch.ones(48 << 20, dtype=torch.uint8)
        del block
    assert peak.bytes is None or peak.bytes == pytest.approx(48 << 20, rel=0.2)


def test_errors_do_not_hide() -> None:
    exact = torch.tensor([0.0, 2.0], dtype=torch.float64)
    assert relative_error(torch.tensor([0.0, 2.2]), exact) == pytest.approx(0.1)
    assert relative_error(torch.tensor([1e-9, 2.0]), exact) == float("inf")


def test_latents_of_two_seeds_are_of_the_same_trees() -> None:
    X, Y = (tree_latents(300, 512, CPU, seed) for seed in (0, 1))
    cosine = X.direction @ Y.direction.T
    assert 0.3 < float(cosine.mean()) < 0.5
    assert float(cosine.max()) > 0.7
    assert float(cosine.max()) < 0.99


def test_nothing_to_plot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="records: expected at least one measurement"):
        plot_records([{"name": "x", "skipped": "why"}], tmp_path / "p.svg")
