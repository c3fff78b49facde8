"""`lapha train`, killed while it writes a checkpoint, goes on from the one before."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

pytest.importorskip("trl", reason="needs lapha[trl]")
from safetensors.torch import load_file

from lapha.integrations.trl.checkpoint import last_checkpoint

TRAINING = {
    "model": "tiny", "data": "tiny", "verifier": "tiny", "context_limit": 512, "problems": 16,
    "num_generations": 4, "per_device_train_batch_size": 8, "max_steps": 3, "save_steps": 1, "learning_rate": 2e-4,
    "beta": 0.0, "use_cpu": True, "bf16": False, "temperature": 1.0, "top_p": 1.0, "top_k": 0,
    "repetition_penalty": 1.0, "max_completion_length": 24, "simulations": 8, "max_expands": 1, "c_puct": 0.1,
    "process_reward": "strict", "easy_accuracy": 1.0, "depth_limit": 8, "report_to": "none", "disable_tqdm": True,
}  # fmt: skip


def command(folder):
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(json.dumps(TRAINING))  # JSON is YAML
    return [sys.executable, "-m", "lapha", "train", "--config", str(path), "--out", str(folder)]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def train(folder):
    done = subprocess.run(command(folder), capture_output=True, text=True, env=environment(), check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def train_until(folder, reached):
    """Start, and kill as soon as `reached` says so."""
    process = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
    )
    try:
        while not reached():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_killed_while_a_checkpoint_is_written(tmp_path):
    through, killed = tmp_path / "through", tmp_path / "killed"
    train(through)
    train_until(killed, (killed / "checkpoint-2").exists)
    (killed / "checkpoint-2" / "trainer_state.json").unlink(missing_ok=True)  # where the kill came too late
    assert last_checkpoint(killed) == str(killed / "checkpoint-1")
    train(killed)
    for name in ("model.safetensors", "value_head/value_head.safetensors"):
        expected, got = load_file(through / name), load_file(killed / name)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[key], got[key]) for key in expected), name
    one, last = (load_file(through / f"checkpoint-{step}" / "model.safetensors") for step in (1, 3))
    assert any(not torch.equal(one[key], last[key]) for key in one)  # something was trained after the kill


def test_the_last_whole_checkpoint(tmp_path, caplog):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "nowhere") is None
    for name, state in (
        ("checkpoint-9", "{}"),
        ("checkpoint-10", '{"global'),
        ("checkpoint-x", "{}"),
        ("other-11", "{}"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-100").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")
    assert "checkpoint-10 is passed over" in caplog.text
    assert "checkpoint-100 is passed over" in caplog.text
