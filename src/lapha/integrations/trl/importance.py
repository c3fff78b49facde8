"""The ratio of two engines' densities, and its bounds, by TRL's options (TRL 1.16)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def importance_ratio(difference: Tensor, trainer: Any) -> Tensor:
    """exp(difference) by ``vllm_importance_sampling_mode``, bounded by its clip range.

    Args:
        difference: (B, C) own minus logged log-probabilities, 0 in padding; NaN (unknown) counts as 0.
        trainer: a `trl.GRPOTrainer`; its four options are read.

    Returns:
        (B, C) for the token modes, (B, 1) for the sequence modes; ``*_mask`` modes have 0 outside the range.
    """
    level, _, bound = trainer.vllm_importance_sampling_mode.partition("_")
    known = difference.nan_to_num(nan=0.0)
    ratio = (known.sum(1, keepdim=True) if level == "sequence" else known).exp()
    least, most = trainer.vllm_importance_sampling_clip_min, trainer.vllm_importance_sampling_clip_max
    if bound == "truncate":
        return ratio.clamp(min=least, max=most)
    outside = torch.zeros_like(ratio, dtype=torch.bool)
    if least is not None:
        outside |= ratio < least
    if most is not None:
        outside |= ratio > most
    return ratio.masked_fill(outside, 0.0)


def log_importance(trainer: Any, difference: Tensor, ratio: Tensor, mask: Tensor) -> None:
    """Log the mean ratio and the mean distance under TRL's names, over all processes."""
    own = ratio if ratio.shape[1] == 1 else ratio[mask.bool()]
    distance = difference.abs().nan_to_num(nan=0.0)
    sums = torch.stack([own.sum(), own.new_tensor(float(own.numel())), distance.sum(), mask.sum().to(own.dtype)])
    total, count, distances, tokens = trainer.accelerator.reduce(sums, reduction="sum").tolist()
    metrics = trainer._metrics["train"]
    metrics["sampling/importance_sampling_ratio/mean"].append(total / max(count, 1))
    metrics["sampling/sampling_logp_difference/mean"].append(distances / max(tokens, 1))
