"""LaPha's process rewards in verl: a reward manager that hands them on, and advantage estimators for them.

A row of verl's batch is one step of a tree: its prompt is the parent state's context, its response the sampled step, its
`uid` the sibling group. `rows_for_verl` makes such rows of a searched and shaped tree, for an agent loop to return. Then

    export VERL_USE_EXTERNAL_MODULES=verl_advantage      # with this file's folder on PYTHONPATH
    python -m verl.trainer.main_ppo algorithm.adv_estimator=lapha reward.reward_manager.name=lapha …

registers everything with verl (0.9) in each of its processes.

For whole multi-step responses instead of trees, put each step's ΔV (`lapha.shaping.chain_rewards`) on the step's last
token and use `algorithm.adv_estimator=lapha_chain`.
"""

import importlib.util
from typing import Any

import numpy as np
import torch

from lapha.integrations import ShapedTree, rows_of_group
from lapha.shaping import chain_advantages, sibling_advantages


def rows_for_verl(shaped: ShapedTree, tree_id: str) -> list[dict[str, Any]]:
    """A shaped tree's sibling groups as the fields of verl's rows: an `AgentLoopOutput` each, and its `uid`."""
    return [
        {
            "prompt_ids": row.prompt_ids,
            "response_ids": row.completion_ids,
            "response_mask": [1] * len(row.completion_ids),
            "response_logprobs": row.logprobs,
            "uid": f"{tree_id}/{group.parent}",
            "extra_fields": {"process_reward": row.reward},
        }
        for group in shaped.groups
        for row in rows_of_group(shaped, group)
    ]


def sibling_group_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, config: Any = None, **unused: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(reward − mean)/(population deviation + 1e-4) among the rows with one `uid`; 0 where they are all equal.

    Args:
        token_level_rewards: (B, T), a row's process reward anywhere in it.
        response_mask: (B, T).
        index: (B,) the rows' `uid`s.

    Returns:
        advantages and returns, (B, T) both, the same tensor: there is no critic.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(index.tolist()))}
    # Group g is a tree of its own: a root (numbered first) whose children are the group's rows.
    parent = torch.tensor([-1] * len(names) + [names[name] for name in index.tolist()])
    reward = torch.cat([torch.zeros(len(names)), token_level_rewards.sum(-1).float().cpu()])
    advantage = sibling_advantages(reward, parent)[len(names) :].nan_to_num(0.0).to(response_mask.device)
    spread = advantage[:, None] * response_mask
    return spread, spread


def chain_advantage(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, config: Any = None, **unused: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token advantages of multi-step responses that carry each step's ΔV on the step's last token.

    A response's return is the sum of its ΔV, whatever the number of its steps; the baseline is the mean return of the
    question's responses (`index`). A step whose ΔV is exactly 0 counts as part of the next: it ends where it began.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(index.tolist()))}
    group = torch.tensor([names[name] for name in index.tolist()], device=token_level_rewards.device)
    last = response_mask.shape[1] - 1 - response_mask.flip(1).bool().int().argmax(1)  # every response ends in a step
    ends = [
        row.index_fill(0, end, 1.0).nonzero()[:, 0] if mask.any() else end[:0]
        for row, mask, end in zip(token_level_rewards, response_mask, last[:, None], strict=True)
    ]
    boundaries = torch.nn.utils.rnn.pad_sequence(ends, batch_first=True, padding_value=-1)
    rewards = token_level_rewards.gather(1, boundaries.clamp(min=0)).masked_fill(boundaries < 0, 0.0)
    potential = rewards.cumsum(1)  # ΔV add up to V
    advantage = chain_advantages(potential, boundaries, token_level_rewards.shape[1], group) * response_mask
    return advantage, advantage


def register() -> None:
    """Make everything known to verl under the names ``lapha`` and ``lapha_chain``."""
    from verl.experimental.reward_loop.reward_manager import register as register_reward_manager
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
    from verl.trainer.ppo.core_algos import register_adv_est

    register_adv_est("lapha")(sibling_group_advantage)
    register_adv_est("lapha_chain")(chain_advantage)

    @register_reward_manager("lapha")
    class ProcessRewardManager(RewardManagerBase):
        """Hands verl the process reward that came with each row; verl puts it on the response's last token.

        A row without one raises: a missing reward must not look like a reward of 0.
        """

        def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **unused: Any) -> None:
            super().__init__(config, tokenizer, compute_score)

        async def run_single(self, data: Any) -> dict[str, Any]:
            row = data[len(data) - 1].non_tensor_batch
            carried = row.get("tool_extra_fields") or row.get("extra_info") or {}
            if "process_reward" not in carried:
                raise ValueError("process_reward: expected one with every row (see rows_for_verl), got none")
            reward = float(carried["process_reward"])
            return {"reward_score": reward, "reward_extra_info": {"process_reward": reward}}


if importlib.util.find_spec("verl") is not None:  # without verl the functions are still there to be used and tested
    register()
