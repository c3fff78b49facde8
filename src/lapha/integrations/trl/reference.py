"""A reference model that follows the policy (TRL's ``sync_ref_model``): it has no value head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from trl.trainer.callbacks import SyncRefModelCallback

from lapha.integrations.trl.checkpoint import PREFIX


class SyncPolicyCallback(SyncRefModelCallback):
    """TRL's callback, which pairs the parameters of the two models one by one, with the value head left out."""

    @staticmethod
    def sync_target_model(model: Any, target_model: Any, alpha: float) -> None:
        """target ← (1 − alpha)·target + alpha·policy, as TRL does it (gathered under ZeRO-3)."""
        SyncRefModelCallback.sync_target_model(_PolicyAlone(model), target_model, alpha)


class _PolicyAlone:
    def __init__(self, model: Any) -> None:
        self._model = model

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return (parameter for name, parameter in self._model.named_parameters() if PREFIX not in name)
