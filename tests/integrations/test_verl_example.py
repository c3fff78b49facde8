"""The verl example: on batches recorded from the embedded policy's trees, and through verl's own registries if it is here."""

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
import example_files

from lapha import PolarPoints
from lapha.integrations import rows_of_group
from lapha.shaping import chain_advantages, chain_potential, chain_rewards

needs_verl = pytest.mark.skipif(
    importlib.util.find_spec("verl") is None,
    reason="verl is not installed: it is large and pins its own transformers (docs/training.md says how to test with it)",
)


@pytest.fixture(scope="module")
def example():
    return example_files.load("verl_advantage.py")


@pytest.fixture(scope="module")
def batch(example):
    """(rows, token_level_rewards, response_mask, uids, expected advantages) as verl lays a batch out, shuffled."""
    rows, expected = [], []
    for number, (shaped, _) in enumerate(example_files.shaped_trees()):
        rows += example["rows_for_verl"](shaped, f"tree{number}")
        expected += [row.advantage for group in shaped.groups for row in rows_of_group(shaped, group)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    rows, expected = [rows[i] for i in order], torch.tensor([expected[i] for i in order])
    assert len({row["uid"] for row in rows}) >= 4
    mask = pad_sequence([torch.tensor(row["response_mask"]) for row in rows], batch_first=True)
    rewards = torch.zeros(mask.shape)
    rewards[torch.arange(len(rows)), mask.sum(1) - 1] = torch.tensor(
        [row["extra_fields"]["process_reward"] for row in rows]
    )
    return rows, rewards, mask, np.array([row["uid"] for row in rows], dtype=object), expected


def test_sibling_advantages_are_those_of_the_trees(example, batch):
    _, rewards, mask, uid, expected = batch
    advantages, returns = example["sibling_group_advantage"](
        token_level_rewards=rewards, response_mask=mask, index=uid, config=None
    )
    torch.testing.assert_close(advantages, expected[:, None] * mask, rtol=1e-4, atol=1e-5)
    assert returns is advantages
    assert advantages.abs().sum() > 0


def test_equal_rewards_give_no_advantage(example):
    rewards = torch.tensor([[0.0, 0.5], [0.0, 0.5], [0.2, 0.0], [0.4, 0.0]])
    mask = torch.ones(4, 2, dtype=torch.long)
    uid = np.array(["a", "a", "b", "b"], dtype=object)
    advantages, _ = example["sibling_group_advantage"](rewards, mask, uid)
    assert advantages[:2].eq(0).all()
    assert advantages[2, 0] == pytest.approx(-1, abs=2e-3)
    assert advantages[3, 0] == pytest.approx(1, abs=2e-3)


def test_chain_advantages_from_rewards_at_the_steps_ends(example):
    boundaries = torch.tensor([[2, 5], [1, 4], [3, -1], [0, 2]])
    radius = torch.rand(4, 2, generator=torch.Generator().manual_seed(1))
    direction = torch.nn.functional.normalize(torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(2)), dim=-1)
    correct, group = torch.tensor([True, False, False, True]), torch.tensor([0, 0, 1, 1])
    V = chain_potential(PolarPoints(direction, radius), boundaries, correct, group)
    token_level = torch.zeros(4, 6)
    for row, ends in enumerate(boundaries.tolist()):
        for step, end in enumerate(ends):
            if end >= 0:
                token_level[row, end] = chain_rewards(V, boundaries)[row, step]
    uid = np.array(["x", "x", "y", "y"], dtype=object)
    mask = (torch.arange(6) <= boundaries.amax(1, keepdim=True)).float()
    advantages, _ = example["chain_advantage"](token_level, mask, uid)
    torch.testing.assert_close(advantages, chain_advantages(V, boundaries, 6, group), rtol=1e-4, atol=1e-5)
    nothing, _ = example["chain_advantage"](torch.zeros(4, 6), mask, uid)
    assert nothing.eq(0).all()


def test_a_right_chain_is_not_punished_for_its_steps(example):
    """Two right responses, V from 0 to 1 in 2 and in 8 even steps, and a wrong one whose last step gains nothing."""
    token_level = torch.zeros(3, 8)
    token_level[0, [3, 7]] = 0.5
    token_level[1] = 0.125
    token_level[2, 3] = 0.25
    uid = np.array(["x"] * 3, dtype=object)
    advantages, _ = example["chain_advantage"](token_level, torch.ones(3, 8), uid)
    assert advantages[0, 0] == pytest.approx(float(advantages[1, 0]))
    assert (advantages[:2] >= -1e-6).all()
    assert (advantages[2] < 0).all()  # to its last token


@needs_verl
def test_verl_computes_our_advantages_by_name(example, batch):
    from verl import DataProto
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo.ray_trainer import compute_advantage

    _, rewards, mask, uid, expected = batch
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": uid}
    )
    data = compute_advantage(data, adv_estimator="lapha", config=AlgoConfig(adv_estimator="lapha"))
    torch.testing.assert_close(data.batch["advantages"], expected[:, None] * mask, rtol=1e-4, atol=1e-5)


@needs_verl
def test_verl_finds_the_reward_manager_by_name(example, batch):
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    rows, rewards, mask, uid, _ = batch
    config = OmegaConf.create({"reward": {"reward_manager": {"source": "register", "name": "lapha"}}})
    manager = load_reward_manager(config, tokenizer=None)
    fields = np.array([row["extra_fields"] for row in rows], dtype=object)
    responses = pad_sequence([torch.tensor(row["response_ids"]) for row in rows], batch_first=True)
    prompts = torch.zeros(len(rows), 1, dtype=torch.long)
    data = DataProto.from_dict(
        tensors={"prompts": prompts, "responses": responses, "attention_mask": torch.cat([prompts + 1, mask], 1)},
        non_tensors={"tool_extra_fields": fields, "uid": uid},
    )

    async def scores():
        return [(await manager.run_single(data[i : i + 1]))["reward_score"] for i in range(len(data))]

    found = manager.loop.run_until_complete(scores())
    torch.testing.assert_close(manager.assemble_rm_scores(data, found), rewards)
    bare = DataProto.from_dict(tensors={"responses": responses}, non_tensors={"uid": uid})
    with pytest.raises(ValueError, match="process_reward"):
        asyncio.run(manager.run_single(bare[:1]))


@needs_verl
def test_verl_loads_the_file_as_an_external_module():
    code = "import verl; from verl.trainer.ppo.core_algos import get_adv_estimator_fn as f; print(f('lapha').__name__)"
    environment = {**os.environ, "VERL_USE_EXTERNAL_MODULES": "verl_advantage"}
    environment["PYTHONPATH"] = os.pathsep.join([str(example_files.FOLDER), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("sibling_group_advantage"), done.stderr[-2000:]
