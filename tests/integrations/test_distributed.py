"""Real DeepSpeed ZeRO-3 on two CPU processes against one process, on the same recorded trees."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("deepspeed")
from safetensors.torch import load_file

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
import recorded

TIMEOUT = 900


@pytest.fixture(scope="module")
def trees_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    trees = recorded.record(folder)
    assert any(tree.groups for tree in trees.values()), "the recorded trees must carry a policy signal"
    path = folder / "trees.pickle"
    path.write_bytes(pickle.dumps(trees))
    return path


def run(command, out, trees_file, questions, *options):
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    # DeepSpeed compiles its shared-memory operator on first use; a build folder of this test's own cannot be left
    # locked by a run that was killed.
    environment["TORCH_EXTENSIONS_DIR"] = str(trees_file.parent / "extensions")
    script = [str(HERE / "recorded.py"), str(out), str(trees_file), str(questions), *map(str, options)]
    done = subprocess.run(
        [*command, *script], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((out / "losses.json").read_text())


@pytest.fixture(scope="module")
def sharded(trees_file, tmp_path_factory):
    """Three steps of ZeRO-3 on two processes: where it ran, and its losses."""
    out = tmp_path_factory.mktemp("sharded")
    return out, run(two_processes(), out, trees_file, 2)


def two_processes():
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    return [*launch, str(ROOT / "configs/accelerate/zero3_2cpu.yaml")]


def saved(folder):
    return {**load_file(folder / "model.safetensors"), **load_file(folder / "value_head" / "value_head.safetensors")}


def test_zero3_on_two_processes_trains_like_one_process(tmp_path, trees_file, sharded):
    one = run([sys.executable], tmp_path, trees_file, 4)
    folder, two = sharded
    assert len(one) == len(two) == 3
    for first, second in zip(one, two, strict=True):
        assert first["lapha/value_loss"] == pytest.approx(second["lapha/value_loss"], rel=1e-3)
        assert first["loss"] == pytest.approx(second["loss"], rel=2e-3, abs=1e-5)
    expected, got = saved(tmp_path / "final"), saved(folder / "final")
    assert expected.keys() == got.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], rtol=1e-3, atol=2e-4)


def test_zero3_resumes_with_the_step_that_would_have_come(tmp_path, trees_file, sharded):
    """Optimiser shards, the head, random states and the order of the questions come back."""
    folder, through = sharded
    resumed = run(two_processes(), tmp_path, trees_file, 2, "--resume", folder / "checkpoint-2")
    assert resumed == through
    expected, got = saved(folder / "final"), saved(tmp_path / "final")
    for key in expected:
        assert torch.equal(got[key], expected[key]), key


def test_zero3_does_not_step_on_a_batch_without_signal(tmp_path, trees_file, sharded):
    """Momentum and weight decay would move the weights in the third step; nothing does."""
    folder, through = sharded
    barren = run(two_processes(), tmp_path, trees_file, 2, "--without-signal-after", 2)
    assert [entry["lapha/no_signal_batches"] for entry in barren] == [0, 0, 1]
    assert barren[:2] == through[:2]
    before, after, moved = saved(tmp_path / "checkpoint-2"), saved(tmp_path / "final"), saved(folder / "final")
    for key in before:
        assert torch.equal(after[key], before[key]), key
    assert any(not torch.equal(moved[key], before[key]) for key in before)
