"""`SharedPrefixTrainer`: `LaPhaTrainer` that computes the prompt of each sibling group once."""

from __future__ import annotations

from typing import Any

from lapha._checks import check
from lapha.integrations.trl.shared_pass import SharedPrefixMixin
from lapha.integrations.trl.trainer import LaPhaTrainer


class SharedPrefixTrainer(SharedPrefixMixin, LaPhaTrainer):  # type: ignore[misc]
    """The same losses and gradients as `LaPhaTrainer`, in fewer tokens: siblings share their prompt.

    A group of six steps that continue one context of a thousand tokens passes that context once instead of six times.
    Micro-batches then hold whole groups. Models whose attention takes no 4-D mask go through TRL's own pass.

    Args:
        args, kwargs: as of `LaPhaTrainer`.

    Raises:
        ValueError: adapters (``peft_config``), whose wrapper hides the model that the packed pass calls.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check(kwargs.get("peft_config") is None, "peft_config", "none with shared prompts", "adapters")
        super().__init__(*args, **kwargs)
