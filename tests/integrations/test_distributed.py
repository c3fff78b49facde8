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


def run(command, out, trees_file, questions):
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    # DeepSpeed compiles its shared-memory operator on first use; a build folder of this test's own cannot be left
    # locked by a run that was killed.
    environment["TORCH_EXTENSIONS_DIR"] = str(trees_file.parent / "extensions")
    script = [str(HERE / "recorded.py"), str(out), str(trees_file), str(questions)]
    done = subprocess.run(
        [*command, *script], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((out / "losses.json").read_text())


def test_zero3_on_two_processes_trains_like_one_process(tmp_path, trees_file):
    alone, sharded = tmp_path / "alone", tmp_path / "sharded"
    one = run([sys.executable], alone, trees_file, 4)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    two = run([*launch, str(ROOT / "configs/accelerate/zero3_2cpu.yaml")], sharded, trees_file, 2)
    assert len(one) == len(two) == 3
    for first, second in zip(one, two, strict=True):
        assert first["lapha/value_loss"] == pytest.approx(second["lapha/value_loss"], rel=1e-3)
        assert first["loss"] == pytest.approx(second["loss"], rel=2e-3, abs=1e-5)
    for name in ("model.safetensors", "value_head/value_head.safetensors"):
        expected, got = load_file(alone / "final" / name), load_file(sharded / "final" / name)
        assert expected.keys() == got.keys()
        for key in expected:
            torch.testing.assert_close(got[key], expected[key], rtol=1e-3, atol=2e-4)
