"""Batches whose trees carry nothing to learn must not move the weights, not even by momentum or weight decay."""

from __future__ import annotations

from typing import Any

import torch


class SignalGate:
    """Stands before an accelerator's backward pass and lets only batches with a signal through.

    What a closed gate keeps back never reaches the optimiser: without gradients torch's optimisers skip the step, and
    DeepSpeed, which steps at the end of its backward pass, is not called at all. Only when an earlier micro-batch of
    the same step had a signal does the last one come through, multiplied by zero, so that the step is taken.

    Args:
        accelerator: the trainer's own; its ``backward`` is replaced on this one object.

    Attributes:
        open: whether the present batch has a signal; the same on every process.
    """

    def __init__(self, accelerator: Any) -> None:
        self.open = True
        self._accelerator = accelerator
        self._through = accelerator.backward
        self._moved = False
        accelerator.backward = self._backward

    def _backward(self, loss: torch.Tensor, **options: Any) -> None:
        last = self._accelerator.sync_gradients
        if self.open:
            self._through(loss, **options)
        elif last and self._moved:
            self._through(loss * 0.0, **options)
        self._moved = not last and (self._moved or self.open)
