"""Real DeepSpeed ZeRO-3 on two CPU processes against one process, on the same recorded trees."""

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("trl")
pytest.importorskip("deepspeed")
from safetensors.torch import load_file

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
import compared
import recorded

from lapha.tiny import load_tiny

TIMEOUT = 900
ZERO3 = ROOT / "configs/accelerate/zero3_2cpu.yaml"


@pytest.fixture(scope="module")
def trees_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    trees = recorded.record(folder)
    assert any(tree.groups for tree in trees.values()), "the recorded trees must carry a policy signal"
    path = folder / "trees.pickle"
    path.write_bytes(pickle.dumps(trees))
    return path


def launch(command, trees_file, arguments):
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    # DeepSpeed compiles its shared-memory operator on first use; a build folder of this test's own cannot be left
    # locked by a run that was killed.
    environment["TORCH_EXTENSIONS_DIR"] = str(trees_file.parent / "extensions")
    command = [*command, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def run(command, out, trees_file, questions, *options):
    launch(command, trees_file, [HERE / "recorded.py", out, trees_file, questions, *options])
    return json.loads((out / "losses.json").read_text())


# DeepSpeed leaves parameters below 100,000 numbers whole unless told otherwise, which is all of this policy: here every
# parameter is partitioned.
PARTITIONED = {
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        "stage3_param_persistence_threshold": 0,
    },
    "zero_allow_untested_optimizer": True,
    **{name: "auto" for name in ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size")},
    "train_micro_batch_size_per_gpu": "auto",
}


@pytest.fixture(scope="module")
def partitioned(trees_file):
    """The shipped configuration for two CPU processes, with every parameter partitioned."""
    folder = trees_file.parent
    (folder / "deepspeed.json").write_text(json.dumps(PARTITIONED))
    configuration = yaml.safe_load(ZERO3.read_text())
    configuration["deepspeed_config"] = {
        "deepspeed_config_file": str(folder / "deepspeed.json"),
        "zero3_init_flag": False,
    }
    del configuration["mixed_precision"]
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(configuration))
    return folder / "accelerate.yaml"


@pytest.fixture(scope="module")
def sharded(trees_file, partitioned, tmp_path_factory):
    """Three steps of ZeRO-3 on two processes: where it ran, and its losses."""
    out = tmp_path_factory.mktemp("sharded")
    return out, run(two_processes(partitioned), out, trees_file, 2)


def two_processes(configuration):
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]


def saved(folder):
    policy = load_file(folder / "model.safetensors")
    policy.pop("lm_head.weight", None)  # the embedding again, which ZeRO-3 writes twice
    return {**policy, **load_file(folder / "value_head" / "value_head.safetensors")}


@pytest.fixture(scope="module")
def alone(trees_file, tmp_path_factory):
    """The same three steps on one process."""
    out = tmp_path_factory.mktemp("alone")
    return out, run([sys.executable], out, trees_file, 4)


def compare_runs(first, second):
    (one_folder, one), (two_folder, two) = first, second
    assert len(one) == len(two) == 3
    for expected, got in zip(one, two, strict=True):
        assert got["lapha/value_loss"] == pytest.approx(expected["lapha/value_loss"], rel=1e-3)
        assert got["loss"] == pytest.approx(expected["loss"], rel=2e-3, abs=1e-5)
    compare_weights(one_folder, two_folder)


def compare_weights(one, two):
    expected, got = saved(one / "final"), saved(two / "final")
    assert expected.keys() == got.keys()
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], rtol=1e-3, atol=2e-4)


def test_zero3_on_two_processes_trains_like_one_process(alone, sharded):
    compare_runs(alone, sharded)


@pytest.mark.parametrize("options", [(), ("--checkpointing", "--packing", "shared")], ids=["plain", "checkpointing"])
def test_plain_ddp_on_two_processes_trains_like_one_process(tmp_path, trees_file, alone, options):
    """torchrun alone, as transformers sets it up: with and without gradient checkpointing."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    compare_runs(alone, (tmp_path, run(launcher, tmp_path, trees_file, 2, *options)))


def test_packed_trees_on_two_processes_train_like_one_process(tmp_path, trees_file):
    """Trees differ in size and groups, so that the processes hold unequal shares of a step."""
    one = tmp_path / "one", run([sys.executable], tmp_path / "one", trees_file, 4, "--packing", "tree")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    two = run(launcher, tmp_path / "two", trees_file, 2, "--packing", "tree")
    assert all(entry["lapha/value_loss"] > 0 for entry in two)
    compare_weights(one[0], tmp_path / "two")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_zero3_resumes_with_the_step_that_would_have_come(tmp_path, trees_file, partitioned, sharded):
    """Optimiser shards, the head, random states and the order of the questions come back."""
    folder, through = sharded
    resumed = run(two_processes(partitioned), tmp_path, trees_file, 2, "--resume", folder / "checkpoint-2")
    assert resumed == through
    expected, got = saved(folder / "final"), saved(tmp_path / "final")
    for key in expected:
        assert torch.equal(got[key], expected[key]), key


def test_zero3_does_not_step_on_a_batch_without_signal(tmp_path, trees_file, partitioned, sharded):
    """Momentum and weight decay would move the weights in the third step; nothing does."""
    folder, through = sharded
    barren = run(two_processes(partitioned), tmp_path, trees_file, 2, "--without-signal-after", 2)
    assert [entry["lapha/no_signal_batches"] for entry in barren] == [0, 0, 1]
    assert barren[:2] == through[:2]
    before, after, moved = saved(tmp_path / "checkpoint-2"), saved(tmp_path / "final"), saved(folder / "final")
    for key in before:
        assert torch.equal(after[key], before[key]), key
    assert any(not torch.equal(moved[key], before[key]) for key in before)


def training_file(folder, name, **changes):
    """What a user gives `lapha train`: the shipped file in small, by plain gradient descent."""
    values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    values |= {
        "output_dir": str(folder / name), "per_device_train_batch_size": 8, "max_steps": 2, "simulations": 12,
        "max_expands": 1, "c_puct": 0.1, "easy_accuracy": 1.0, "process_reward": "strict", "beta": 0.1,
        "optim": "sgd", "learning_rate": 0.03, "lr_scheduler_type": "constant", "warmup_steps": 0, "logging_steps": 1,
        "save_steps": 2, "problems": 8,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


@pytest.fixture(scope="module")
def compared_runs(trees_file, partitioned, tmp_path_factory):
    """Where `compared.SHARDED` ran, and `lapha train` with the plain trainer."""
    folder = tmp_path_factory.mktemp("compared")
    compared.save_untied(trees_file.parent / "untied")
    script = [HERE / "compared.py", folder, trees_file, training_file(folder, "plain")]
    launch(two_processes(partitioned), trees_file, script)
    return folder


@pytest.mark.parametrize("setting", ["untied", "adapters"])
def test_zero3_shares_prompts_as_one_plain_process_trains(tmp_path, compared_runs, trees_file, setting):
    trees, untied = pickle.loads(trees_file.read_bytes()), trees_file.parent / "untied"
    one = compared.outcome(compared.make_trainer("plain", compared.SHARDED[setting], tmp_path, trees, 4, untied))
    two = torch.load(compared_runs / setting / "shared.pt")
    compared.check_same(one, two)
    assert two["whole"] == []  # the head too had to be gathered
    assert two["sequences"] == [2, 2]  # groups on each process
    assert one["losses"][1]["kl"] > 1e-5  # else a reference that is the policy itself would do


def test_zero3_shares_prompts_when_one_process_has_no_signal_and_fewer_groups(compared_runs):
    plain, shared = (torch.load(compared_runs / compared.UNEVEN / f"{name}.pt") for name in compared.TRAINERS)
    compared.check_same(plain, shared)
    assert shared["whole"] == []
    assert plain["sequences"] == [2 * recorded.BREADTH] * 2
    assert shared["sequences"] == [2, 1]


def test_zero3_resumes_with_shared_prompts(compared_runs):
    through, resumed = (torch.load(compared_runs / compared.UNEVEN / f"{name}.pt") for name in ("shared", "resumed"))
    assert resumed["losses"] == through["losses"]
    assert len(resumed["rows"]) == len(through["rows"]) // 3  # it took the last step alone
    for name, tensor in through["after"].items():
        assert torch.equal(resumed["after"][name], tensor), name


def test_lapha_train_shares_prompts_under_deepspeed(compared_runs, trees_file):
    """The command itself, under ZeRO-2, against the plain trainer's run of the same file under ZeRO-3."""
    configuration = yaml.safe_load(ZERO3.read_text())
    configuration["deepspeed_config"]["zero_stage"] = 2
    (compared_runs / "zero2.yaml").write_text(yaml.safe_dump(configuration))
    given = training_file(compared_runs, "shared", share_prompts=True)
    launch(two_processes(compared_runs / "zero2.yaml"), trees_file, ["-m", "lapha", "train", "--config", given])
    model, _, head = load_tiny()
    before = {**model.state_dict(), **head.state_dict()}
    states = []
    for name in ("plain", "shared"):
        history = json.loads((compared_runs / name / "checkpoint-2" / "trainer_state.json").read_text())["log_history"]
        names = ("loss", "kl", "entropy", "lapha/value_loss", "lapha/tree_tokens")
        losses = [{name: entry[name] for name in names} for entry in history if "loss" in entry]
        after = saved(compared_runs / name)
        states.append({"losses": losses, "before": {name: before[name] for name in after}, "after": after})
    compared.check_same(*states)
