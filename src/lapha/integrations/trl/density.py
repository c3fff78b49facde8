"""Log-probabilities of sampled tokens under the distribution that they were sampled from, from the policy's logits."""

from __future__ import annotations

import torch
from torch import Tensor

from lapha.types import SamplingParams


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at `tokens`: (C, V), (C,) → (C,) float32."""
    scaled = logits.float() / temperature
    return scaled.gather(1, tokens[:, None])[:, 0] - scaled.logsumexp(1)


def processed_logprobs(logits: Tensor, context: Tensor, tokens: Tensor, params: SamplingParams) -> Tensor:
    """What a server logs as processed log-probabilities: after penalty, temperature, top-k and top-p.

    A token that was sampled was among those kept, whatever rounding says here: it is never cut off.

    Args:
        logits: (C, V), of the position before each token.
        context: (P,) ids before the first token; the penalty covers them too.
        tokens: (C,) sampled ids.
        params: how they were sampled; a temperature of 0 is read as 1 (no server scales by it).

    Returns:
        (C,) float32.
    """
    scores = logits.float()
    if params.repetition_penalty != 1:
        scores = torch.where(_seen(context, tokens, scores.shape[1]), _penalized(scores, params), scores)
    scores = scores / (params.temperature or 1.0)
    own = scores.gather(1, tokens[:, None])
    if 0 < params.top_k < scores.shape[1]:
        least = scores.topk(params.top_k, dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if params.top_p < 1:
        ordered, order = scores.sort(dim=1, descending=True)
        share = ordered.softmax(1)
        before = share.cumsum(1) - share  # the first token that passes the mass is kept
        kept = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, before < params.top_p)
        scores = scores.masked_fill(~kept, -torch.inf)
    scores = scores.scatter(1, tokens[:, None], own)
    return own[:, 0] - scores.logsumexp(1)


def _penalized(scores: Tensor, params: SamplingParams) -> Tensor:
    return torch.where(scores > 0, scores / params.repetition_penalty, scores * params.repetition_penalty)


def _seen(context: Tensor, tokens: Tensor, vocabulary: int) -> Tensor:
    """(C, V) bool: the ids that stand before each of `tokens`."""
    row = torch.zeros(len(tokens), vocabulary, dtype=torch.int16, device=tokens.device)
    row[0, context] = 1
    row[torch.arange(1, len(tokens), device=tokens.device), tokens[:-1]] = 1
    return row.cumsum(0, dtype=torch.int16) > 0
