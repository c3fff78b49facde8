"""The build command: a miniature run trains, writes a folder that loads, and reports; bad input is found early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from lapha.latent import ValueHead
from lapha.tiny import load_tiny, tiny_metrics
from lapha.tiny.build import main


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    run = subprocess.run(
        [sys.executable, "-m", "lapha.tiny.build", "--out", str(folder), "--probe", "--threads", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_the_files_load(built: tuple[Path, str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = built
    model, tokenizer, head = load_tiny(folder)
    assert next(model.parameters()).dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    same = AutoModelForCausalLM.from_pretrained(folder)
    assert same.dtype == torch.float32
    assert same.config.eos_token_id == AutoTokenizer.from_pretrained(folder).eos_token_id == tokenizer.eos_token_id
    assert same.generation_config.eos_token_id == tokenizer.eos_token_id
    for target in ("success_rate", "potential"):
        other = load_tiny(folder, value_target=target)[2]
        assert other.value_target == target
        assert torch.equal(other.linear.weight, head.linear.weight) == (target == head.value_target)
    assert ValueHead.from_pretrained(folder).linear.weight.abs().sum() > 0


def test_it_is_small(built: tuple[Path, str]) -> None:
    assert sum(file.stat().st_size for file in built[0].rglob("*") if file.is_file()) < 4_000_000


def test_the_report(built: tuple[Path, str]) -> None:
    folder, output = built
    metrics: dict[str, Any] = tiny_metrics(folder)
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    training = metrics["training"]
    assert training["complete"]
    assert training["steps_done"] == training["steps"] == 40
    assert training["last_loss"] < training["first_loss"] - 1
    assert metrics["value_target"] in ("success_rate", "potential")
    assert set(metrics["single_shot"]) == {"1.0", "0.7", "0.5", "0.3"}
    for name in ("potential", "success_rate_head", "potential_head"):
        assert 0 <= metrics["sibling_order"][name]["all"] <= 1
    for line in (
        "single shot",
        "invalid steps at",
        "sibling pairs ordered by V",
        "calibration error",
        "best of 4 moves",
    ):
        assert line in output


def test_the_probe_is_far_from_trained(built: tuple[Path, str]) -> None:
    """The measurements tell a policy that cannot walk from one that can."""
    metrics = tiny_metrics(built[0])
    assert metrics["single_shot"]["1.0"]["rate"] < 0.05
    assert metrics["invalid_steps"]["share"] > 0.3


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "inside"), "--probe"]) == 2
    error = capsys.readouterr().err
    assert "out: expected a folder that can be written" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_bad_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str], minutes: str) -> None:
    assert main(["--out", str(tmp_path), "--probe", "--minutes", minutes]) == 2
    assert "minutes: expected a number > 0" in capsys.readouterr().err


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: expected a checkpoint folder with config\.json"):
        load_tiny(tmp_path)
