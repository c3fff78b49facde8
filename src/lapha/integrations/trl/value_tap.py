"""The value head on the policy, and its per-token scores out of the policy's own forward pass."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

from lapha.latent import ValueHead


def causal_lm(model: Any) -> Any:
    """The model under adapters, which has the decoder as its ``base_model``; other models as they are."""
    return model.get_base_model() if is_peft_model(model) else model


def attach_value_head(model: Any, head: ValueHead, *, trained: bool) -> ValueHead:
    """Make `head` a submodule of the policy, under the adapters if it has any, so that every launcher carries it along.

    Attached after the adapters, it is none of their targets: it trains in full, whatever adapters there are.
    """
    policy = causal_lm(model)
    policy.value_head = head.to(device=model.device, dtype=model.dtype).requires_grad_(trained)
    return policy.value_head


@dataclass
class ScoredOutput(FusedCausalLMOutput):  # type: ignore[misc]
    """What TRL's fused head returns, and the value head's score of every token, (B, L)."""

    value_scores: Tensor | None = None


class ValueTap:
    """Adds the head's score of every token to what the policy's forward pass returns, while it is open.

    The head must run inside the forward pass: DDP waits for the gradients of what a forward pass returned.

    Args:
        model: a causal LM, not its wrapper; its ``forward`` is replaced on this one object.
        head: a `ValueHead` on the model.
        to_backbone: whether gradients flow on from the scores into the model.

    Attributes:
        scores: (B, L) of the last pass while it was open.
    """

    def __init__(self, model: Any, head: ValueHead, *, to_backbone: bool) -> None:
        self.scores: Tensor | None = None
        self._open = False
        previous = model.forward

        @functools.wraps(previous)  # `generate` looks at the signature
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._open:
                return previous(*args, **kwargs)
            with captured_hidden_states(model.get_decoder()) as captured:
                output = previous(*args, **kwargs)
            hidden = captured[-1]
            with torch.autocast(hidden.device.type, enabled=False):
                self.scores = head.logits(hidden if to_backbone else hidden.detach())
            if isinstance(output, tuple):
                return (*output, self.scores)
            return ScoredOutput(**output, value_scores=self.scores)

        model.forward = forward

    @contextmanager
    def open(self) -> Iterator[None]:
        """Passes inside the block yield scores."""
        self._open, self.scores = True, None
        try:
            yield
        finally:
            self._open = False

    def take(self) -> Tensor:
        """The scores of the pass that has just been made.

        Raises:
            RuntimeError: there was none.
        """
        scores, self.scores = self.scores, None
        if scores is None:
            raise RuntimeError("value head: expected one forward pass of the policy a micro-batch, got none")
        return scores


@contextmanager
def captured_hidden_states(decoder: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collect the decoder's last hidden states (B, L, H) of every forward pass inside the block."""
    captured: list[Tensor] = []

    def keep(module: torch.nn.Module, args: Any, output: Any) -> None:
        captured.append(output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0])

    handle = decoder.register_forward_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()
