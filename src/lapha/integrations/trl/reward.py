"""The process reward as a TRL reward function."""

from __future__ import annotations

import math
from typing import Any


class ProcessReward:
    """Hands TRL the process rewards that `TreeRollout` computed: one per row, None where there is none.

    TRL leaves rows with None out of the group's baseline and gives them no advantage. Picklable; usable beside
    other reward functions through TRL's ``reward_weights``.

    Raises:
        ValueError: the rows carry no process reward, which means that the trainer was not given a `TreeRollout`.
    """

    __name__ = "process_reward"

    def __call__(
        self, prompts: list, completions: list, process_reward: list[float] | None = None, **columns: Any
    ) -> list[float | None]:
        if process_reward is None:
            raise ValueError(
                "process_reward: expected one number per row from TreeRollout, got none; "
                "pass rollout_func=TreeRollout(verifier) to the trainer"
            )
        return [None if math.isnan(reward) else reward for reward in process_reward]
