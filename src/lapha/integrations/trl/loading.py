"""Loading a policy by name as TRL's trainer does, before the trainer is made (TRL 1.16)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel
from trl.trainer.utils import create_model_from_path


def load_policy(name: str, args: Any, quantization_config: Any = None) -> PreTrainedModel:
    """The model that `GRPOTrainer(name, args, quantization_config=…)` would make: float32 unless `args` say otherwise.

    The optimiser's steps are far below the resolution of bfloat16 weights, so that weights that are stored in bfloat16
    must not be trained in it by default.

    Args:
        name: a folder, or a name on the hub.
        args: the trainer's; `model_init_kwargs` and `trust_remote_code` are read.
        quantization_config: as of `GRPOTrainer`.

    Raises:
        ValueError: a dtype that torch does not have, or quantization settings in two places.
    """
    options = dict(args.model_init_kwargs or {})
    if quantization_config is not None:
        if "quantization_config" in options:
            raise ValueError("quantization_config: expected in one place, got it in model_init_kwargs too")
        options["quantization_config"] = quantization_config
    if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        options["device_map"] = None
    options.setdefault("trust_remote_code", args.trust_remote_code)
    return create_model_from_path(name, **options)


@contextmanager
def loaded_already() -> Iterator[None]:
    """Keep TRL from warning that the model's options are ignored: `load_policy` has used them."""
    trainer = logging.getLogger("trl.trainer.grpo_trainer")
    trainer.addFilter(_other_than_ignored)
    try:
        yield
    finally:
        trainer.removeFilter(_other_than_ignored)


def _other_than_ignored(record: logging.LogRecord) -> bool:
    return "model is already instantiated" not in record.getMessage()
