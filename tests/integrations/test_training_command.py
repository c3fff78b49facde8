"""`lapha train` itself: a dry run that computes gradients, and a finished run that is started again."""

import hashlib
from pathlib import Path

import pytest
import yaml

pytest.importorskip("trl")
from safetensors.torch import load_file

from lapha.cli import run
from lapha.cli._training_run import TrainingRun, read_settings

ROOT = Path(__file__).parents[2]


def training_file(folder, **changes):
    values = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
    values |= {"per_device_train_batch_size": 8, "simulations": 4, "problems": 8, "output_dir": str(folder / "out")}
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bf16": True, "gradient_checkpointing": True, "gradient_accumulation_steps": 2},
        {"lora_rank": 2, "entropy_coef": 0.01},
        {"share_prompts": True, "value_states": "tree"},
    ],
)
def test_a_dry_run_goes_forward_and_backward_with_the_run_s_own_options(tmp_path, changes):
    pytest.importorskip("peft")
    training = TrainingRun(read_settings(training_file(tmp_path, **changes), dry_run=True))
    training.train()
    args, entry = training.trainer.args, training.trainer.state.log_history[0]
    for name, value in changes.items():
        assert getattr(args, name, value) == value
    assert entry["lapha/no_signal_batches"] == 0
    assert entry["grad_norm"] > 0
    assert entry["lapha/value_loss"] > 0
    assert entry["lapha/policy_rows"] == 1


def test_a_dry_run_finds_what_only_a_backward_pass_can(tmp_path, monkeypatch):
    from lapha.integrations.trl import LaPhaTrainer

    def broken(self, loss, **options):
        raise RuntimeError("backward")

    training = TrainingRun(read_settings(training_file(tmp_path), dry_run=True))
    monkeypatch.setattr(type(training.trainer.accelerator), "backward", broken)
    training = TrainingRun(read_settings(training_file(tmp_path), dry_run=True))
    assert isinstance(training.trainer, LaPhaTrainer)
    with pytest.raises(RuntimeError, match="backward"):
        training.train()


def digest(path):
    """Of a file's content; safetensors writes the entries of a header in any order."""
    if path.suffix == ".safetensors":
        tensors = sorted((name, hashlib.sha256(t.numpy().tobytes()).hexdigest()) for name, t in load_file(path).items())
        return str(tensors)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder):
    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("steps", [2, 4])  # within an epoch, and at the end of one
def test_a_finished_run_started_again_changes_nothing(tmp_path, steps, caplog):
    path = training_file(tmp_path, max_steps=steps, save_steps=1, problems=8)
    assert run(["train", "--config", str(path)]) == 0
    before = contents(tmp_path / "out")
    assert f"checkpoint-{steps}/trainer_state.json" in before
    caplog.clear()
    assert run(["train", "--config", str(path)]) == 0
    assert contents(tmp_path / "out") == before
    assert "is finished: nothing is left to do" in caplog.text
    # a kill between the last checkpoint and the export
    (tmp_path / "out" / "model.safetensors").unlink()
    (tmp_path / "out" / "value_head" / "value_head.safetensors").unlink()
    assert run(["train", "--config", str(path)]) == 0
    assert contents(tmp_path / "out") == before
