"""Log-probabilities through a language model's head on a CPU, where arithmetic is dear and memory is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ROWS = 128  # tokens in flight: their logits stay in the caches while they are turned into probabilities


class DenseLogProb(torch.autograd.Function):
    """Temperature-scaled log-probabilities of target tokens, and entropies, in three matrix products.

    Probabilities (N, V) are kept for the backward pass instead of being computed again, which is the fourth product of
    a head that keeps nothing. The backward pass turns them into the logits' gradient in place, so it runs once.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """(N, H), (V, H), (V,) or None, (N,) → log-probabilities (N,) and entropies (N,), which have no gradient."""
        probability = hidden.new_empty(len(hidden), len(weight))
        logprob, entropy = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            logits = probability[rows]
            torch.mm(hidden[rows], weight.t(), out=logits)
            if bias is not None:
                logits.add_(bias)
            logits.mul_(1 / temperature)
            normaliser = logits.logsumexp(1)
            logprob[rows] = logits.gather(1, targets[rows, None])[:, 0] - normaliser
            p = (logits - normaliser[:, None]).exp_()
            entropy[rows] = normaliser - torch.linalg.vecdot(p, logits)
            logits.copy_(p)
        ctx.save_for_backward(hidden, weight, targets)
        ctx.probability, ctx.temperature, ctx.has_bias = probability, temperature, bias is not None
        ctx.mark_non_differentiable(entropy)
        return logprob, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        hidden, weight, targets = ctx.saved_tensors
        probability, ctx.probability = ctx.probability, None
        if probability is None:
            raise RuntimeError("DenseLogProb: expected one backward pass, got a second one")
        scale = gradients[0] / ctx.temperature
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # None beside adapters
        bias_gradient = weight.new_zeros(len(weight)) if ctx.has_bias else None
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            gradient = probability[rows].mul_(-scale[rows, None])
            gradient.scatter_add_(1, targets[rows, None], scale[rows, None])
            torch.mm(gradient, weight, out=hidden_gradient[rows])
            if weight_gradient is not None:
                weight_gradient.addmm_(gradient.t(), hidden[rows])
            if bias_gradient is not None:
                bias_gradient += gradient.sum(0)
        return hidden_gradient, weight_gradient, bias_gradient, None, None


def suits(hidden: Tensor, weight: Tensor, limit: int = 1 << 29) -> bool:
    """Whether the dense form is the better one: float32 on a CPU, and at most `limit` bytes of probabilities."""
    plain = hidden.device.type == "cpu" and hidden.dtype == weight.dtype == torch.float32
    plain = plain and not hasattr(weight, "ds_id")  # under ZeRO-3 the weight is not there
    return plain and not torch.is_autocast_enabled("cpu") and 4 * len(hidden) * len(weight) <= limit
