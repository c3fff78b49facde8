"""Loading a policy by name as TRL's trainer does, before the trainer is made (TRL 1.16)."""

from __future__ import annotations

import logging
import re
import warnings
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
def without_lines(*fragments: str) -> Iterator[None]:
    """Keep TRL's trainer from writing lines that hold one of `fragments`: they are wrong or no news with trees."""

    def other(record: logging.LogRecord) -> bool:
        return not any(fragment in record.getMessage() for fragment in fragments)

    trainer = logging.getLogger("trl.trainer.grpo_trainer")
    trainer.addFilter(other)
    try:
        with warnings.catch_warnings():
            for fragment in fragments:
                warnings.filterwarnings("ignore", message=f".*{re.escape(fragment)}")
            yield
    finally:
        trainer.removeFilter(other)
