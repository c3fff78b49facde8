"""Which engine grows the trees of a training step: the trainer's own weights, or the vLLM that TRL keeps in step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.models.utils import unwrap_model_for_generation

from lapha.engines import TransformersEngine, VLLMLocalEngine, VLLMServerEngine
from lapha.types import Policy

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def live_engine(trainer: Any) -> Iterator[tuple[Policy, Any]]:
    """(engine, model): the policy with its current weights, which also evaluates states, and the weights themselves.

    Under ZeRO-3 they are gathered meanwhile.

    Without vLLM one transformers engine does both. With vLLM, its server or its colocated `LLM` samples, in which TRL
    has just put the weights, and the value head reads h(s) from the trainer's own model.
    """
    with unwrapped_policy(trainer) as model:
        own = TransformersEngine(
            model,
            trainer.processing_class,
            value_head=getattr(model, "value_head", None),
            autocast=autocast_dtype(trainer.accelerator, model),
        )
        try:
            if trainer.use_vllm:
                with _vllm_engine(trainer, own) as engine:
                    yield engine, model
            else:
                yield own, model
        finally:
            own.close()


def unwrapped_policy(trainer: Any) -> Any:
    """A context manager that yields the policy itself, its weights gathered meanwhile under ZeRO-3."""
    return unwrap_model_for_generation(
        trainer.model_wrapped, trainer.accelerator, gather_deepspeed3_params=trainer.args.ds3_gather_for_generation
    )


def autocast_dtype(accelerator: Any, model: torch.nn.Module) -> torch.dtype | None:
    """The dtype that mixed-precision training computes in while the weights are float32; else None."""
    dtype = _AUTOCAST.get(accelerator.mixed_precision)
    return dtype if next(model.parameters()).dtype == torch.float32 else None


def server_url(args: Any) -> str:
    """Base URL of the vLLM server that TRL sends the weights to."""
    return args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"


@contextmanager
def _vllm_engine(trainer: Any, evaluator: TransformersEngine) -> Iterator[Policy]:
    if trainer.vllm_mode == "server":
        trainer.accelerator.wait_for_everyone()  # the main process alone knows when the weights have arrived
        yield VLLMServerEngine([server_url(trainer.args)], tokenizer=trainer.processing_class, evaluator=evaluator)
        return
    engine = VLLMLocalEngine(trainer.vllm_generation.llm, evaluator=evaluator)
    try:
        yield engine
    finally:
        engine.close()
