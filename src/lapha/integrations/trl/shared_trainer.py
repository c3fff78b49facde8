"""`SharedPrefixTrainer`: `LaPhaTrainer` that computes the prompt of each sibling group once."""

from __future__ import annotations

from lapha.integrations.trl.shared_pass import check_adapters
from lapha.integrations.trl.trainer import LaPhaTrainer


class SharedPrefixTrainer(LaPhaTrainer):
    """`LaPhaTrainer` with ``packing="prompt"``: the losses and gradients of rows, in fewer tokens.

    A group of six steps that continue one context of a thousand tokens passes that context once instead of six times.
    Micro-batches then hold whole groups (with gradient accumulation the value loss is a mean over each of them, so its
    weighting follows the groups). Models whose attention takes no 4-D mask go through TRL's own pass.

    Args:
        args, kwargs: as of `LaPhaTrainer`; ``args.packing`` is not read.

    Raises:
        ValueError: also adapters that depend on where in a row a token stands (prompt learning, aLoRA).
    """

    def _choose_packing(self) -> str:
        check_adapters(self.model)
        return "prompt" if self._obstacles()["prompt"] is None else "none"
