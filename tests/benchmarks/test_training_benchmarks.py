"""The training suites: every contestant takes the same step, and the records say what was asked."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import main
from benchmarks.records import read_records
from benchmarks.training_data import SMOKE, count_tokens, make_rows
from benchmarks.training_steps import KINDS, run_steps, turns

MEASURED = {"median_ms", "p20_ms", "p80_ms", "calls", "shape", "commit", "versions"}


def first_losses(kind: str, beta: float) -> list[float]:
    found: list[float] = []
    ticket = turns(2)
    run_steps(kind, dataclasses.replace(SMOKE, beta=beta), lambda: next(ticket), lambda _, loss: found.append(loss))
    return found


def test_all_contestants_compute_the_policy_loss_of_the_same_rows() -> None:
    losses = {kind: first_losses(kind, 0.0) for kind in KINDS}
    assert all(len(found) == 2 for found in losses.values())
    # ratio 1 everywhere: the policy's part is minus the mean advantage, which is 0 within a group
    assert losses["grpo"][0] == pytest.approx(0, abs=1e-5)
    # sharing prompts changes the arithmetic, not the step
    assert losses["shared"] == pytest.approx(losses["lapha"], rel=1e-3)
    # what the two others add is a mean squared error of values in (0, 1)
    assert 0 < losses["lapha"][0] < 1
    assert 0 < losses["reference"][0] < 1


def test_rows_share_their_group_s_prompt() -> None:
    rows = make_rows(SMOKE, 64)
    assert len(rows) == SMOKE.groups * SMOKE.breadth
    for _, group in itertools.groupby(rows, key=lambda row: row.question):
        members = list(group)
        assert len({tuple(row.prompt_ids) for row in members}) == 1
        assert sum(row.advantage for row in members) == pytest.approx(0, abs=1e-5)
        assert all(row.value_ends[-1] == len(row.prompt_ids) + len(row.completion_ids) for row in members)
    assert count_tokens(rows) == sum(row.value_ends[-1] for row in rows)


def test_training_suite(tmp_path: Path) -> None:
    output = tmp_path / "training.jsonl"
    arguments = ["training", "--device", "cpu", "--sizes", "smoke", "--repeats", "2", "--beta", "0"]
    chosen = ["lapha", "reference"]  # a process each
    assert main([*arguments, "--contestants", *chosen, "--output", str(output)]) == 0
    records = {record["name"]: record for record in read_records(output)}
    assert set(records) == set(chosen)
    for record in records.values():
        assert set(record) >= MEASURED | {"tokens_per_s", "peak_extra_bytes"}
        assert record["peak_extra_bytes"] > 0
        for ratio in record["against"].values():
            assert ratio["time_ratio"] > 0
            assert ratio["memory_ratio"] > 0


def test_rollout_suite(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    output = tmp_path / "rollout.jsonl"
    arguments = ["rollout", "--device", "cpu", "--sizes", "smoke", "--repeats", "2", "--processes", "2"]
    assert main([*arguments, "--output", str(output)]) == 0
    (two,) = read_records(output)
    assert two["shape"]["processes"] == 2
    assert two["speed_ratio"] == pytest.approx(1)  # against itself: the first group is what others are measured against
    assert two["trees_per_s"] == pytest.approx(2 * two["shape"]["trees"] / (two["median_ms"] / 1e3))
    assert set(two) >= MEASURED | {"paired_speed_ratio"}
