"""`SharedPrefixTrainer`: `LaPhaTrainer` that computes the prompt of each sibling group once."""

from __future__ import annotations

from lapha.integrations.trl.shared_pass import SharedPrefixMixin
from lapha.integrations.trl.trainer import LaPhaTrainer


class SharedPrefixTrainer(SharedPrefixMixin, LaPhaTrainer):  # type: ignore[misc]
    """The same losses and gradients as `LaPhaTrainer`, in fewer tokens: siblings share their prompt.

    A group of six steps that continue one context of a thousand tokens passes that context once instead of six times.
    Micro-batches then hold whole groups (with gradient accumulation the value loss is a mean over each of them, so its
    weighting follows the groups). Models whose attention takes no 4-D mask go through TRL's own pass.

    Args:
        args, kwargs: as of `LaPhaTrainer`.

    Raises:
        ValueError: also adapters that depend on where in a row a token stands (prompt learning, aLoRA).
    """
