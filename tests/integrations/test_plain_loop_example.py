"""The plain PyTorch loop: it runs as a script, it learns, and its records are shaped as the tree itself is."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
import example_files

from lapha.integrations import ShapingConfig, shape_rollouts, shape_tree
from lapha.search import SearchResult
from lapha.tiny import BREADTH, verify
from lapha.tiny.problems import TinyVerifier


def test_it_runs_as_a_script():
    done = subprocess.run(
        [sys.executable, str(example_files.FOLDER / "train_plain_loop.py"), "--steps", "1", "--questions", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "step 0" in done.stdout


def test_it_learns_the_potential():
    log = example_files.load("train_plain_loop.py")["train"](steps=6, questions=8, simulations=12)
    assert len(log) == 6
    assert all(math.isfinite(number) for row in log for number in row.values())
    losses = [row["value_loss"] for row in log]  # each of other questions, so that single ones say little
    assert sum(losses[3:]) / 3 < sum(losses[:2]) / 2


def test_records_shape_as_the_tree_does():
    records_of = example_files.load("train_plain_loop.py")["records_of"]
    solved = 0
    for searched, latents in example_files.shaped_trees():
        config = ShapingConfig(reward="strict", breadth=BREADTH, failed_leaves="geometry")
        shaped = shape_tree(searched.tree, latents, TinyVerifier(), config)
        result = SearchResult(shaped.tree.question, 0, "", None, math.nan, None, shaped.tree, latents, "simulations")
        ours = shape_rollouts(records_of(result, verify), config=config)
        torch.testing.assert_close(ours.potential, shaped.value, rtol=1e-4, atol=1e-5)
        if shaped.has_goal:
            solved += 1
            torch.testing.assert_close(ours.reward, shaped.reward, rtol=1e-3, atol=1e-5)
        else:
            assert ours.reward.isnan().all()
    assert solved
