"""Choosing the next token: transformers' logits processors, and noise that does not depend on the batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from lapha._imports import require
from lapha.types import SamplingParams

_SORTED_WHOLE = 4096  # vocabularies up to this size are sorted whole for top-p
_NUCLEUS_CANDIDATES = 1024
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: a bijection of 64-bit words whose output bits all depend on all input bits."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def stream_keys(seed: int, count: int) -> list[int]:
    """One 64-bit key for each of `count` continuations of a request with `seed`."""
    with np.errstate(over="ignore"):
        base = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64) + _GOLDEN)
        return _mix(base + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)).tolist()


def uniforms(keys: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """Uniform numbers in [0, 1), float64, shape (B,): entry b depends on ``keys[b]`` and ``positions[b]`` alone.

    A counter-based generator: the draw for a token is the same whichever rows share its batch, so a request's
    continuations are a function of its context, its seed and their index. 32 bits are used, so that u · total
    stays below total in float64.
    """
    with np.errstate(over="ignore"):
        counter = _GOLDEN * (np.asarray(positions, dtype=np.uint64) + np.uint64(1))
        word = _mix(np.asarray(keys, dtype=np.uint64) + counter)
    return (word >> np.uint64(32)).astype(np.float64) / 4294967296.0


class TokenSampler:
    """Draws tokens by one set of parameters.

    The processors are those of `transformers.GenerationMixin.generate`, in its order: repetition penalty,
    temperature, top-k, top-p. Top-k is taken by `torch.topk`, and the rest of the work is done on the k candidates:
    sorting a whole vocabulary costs more than a decoding step of a small model. For the same reason top-p alone looks at
    the likeliest tokens of a large vocabulary first, and sorts it whole only where they do not hold the nucleus.

    Args:
        params: sampling parameters.
    """

    def __init__(self, params: SamplingParams) -> None:
        processors = require("transformers", extra="llm")
        self.params = params
        self.greedy = params.temperature == 0
        penalty = params.repetition_penalty
        self._penalty = processors.RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1 else None
        self._temperature = processors.TemperatureLogitsWarper(float(params.temperature or 1.0))
        self._top_p = processors.TopPLogitsWarper(float(params.top_p)) if params.top_p < 1 else None

    @property
    def needs_context(self) -> bool:
        """Whether `pick` needs the context's token ids."""
        return self._penalty is not None

    def pick(self, logits: torch.Tensor, context: torch.Tensor | None, uniform: torch.Tensor) -> torch.Tensor:
        """The next token of each row.

        Args:
            logits: (B, V) float32 of the model, unchanged by this call.
            context: (B, L) token ids of each row's context, needed where `needs_context`; a shorter row is filled
                up with any of its own tokens.
            uniform: (B,) float64 in [0, 1).

        Returns:
            (B,) int64.
        """
        if self._penalty is not None:
            logits = self._penalty(context, logits)
        if self.greedy:
            return logits.argmax(dim=-1)
        if self.params.temperature != 1:
            logits = self._temperature(None, logits)
        scores, candidates = self._candidates(logits)
        cumulative = torch.softmax(scores, dim=-1).cumsum(dim=-1, dtype=torch.float64)
        drawn = torch.searchsorted(cumulative, (uniform * cumulative[:, -1]).unsqueeze(-1), right=True)
        drawn = drawn.clamp_max(cumulative.shape[-1] - 1)  # NaN logits find no place; the worker names them
        return drawn.squeeze(-1) if candidates is None else candidates.gather(-1, drawn).squeeze(-1)

    def _candidates(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores (B, K) of the tokens that may be drawn, and their ids (B, K); None for the whole vocabulary.

        They come in order of token id, so that a near tie between two of them cannot change which one u picks.
        """
        top_k, vocabulary = self.params.top_k, logits.shape[-1]
        if 0 < top_k < vocabulary:
            ids = logits.topk(top_k, dim=-1, sorted=False).indices.sort(dim=-1).values
            scores = logits.gather(-1, ids)
            return (scores if self._top_p is None else self._top_p(None, scores)), ids
        if self._top_p is None:
            return logits, None
        if vocabulary > _SORTED_WHOLE:
            nucleus = self._nucleus(logits)
            if nucleus is not None:
                return nucleus
        return self._top_p(None, logits), None

    def _nucleus(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The nucleus, if the most likely tokens hold it: what transformers finds by sorting the whole vocabulary."""
        top = logits.topk(_NUCLEUS_CANDIDATES, dim=-1)
        share = (top.values - logits.logsumexp(dim=-1, keepdim=True)).exp()
        before = share.cumsum(dim=-1) - share
        if not bool((before[:, -1] >= self.params.top_p).all()):
            return None
        scores = top.values.masked_fill(before >= self.params.top_p, float("-inf"))
        order = top.indices.argsort(dim=-1)
        return scores.gather(-1, order), top.indices.gather(-1, order)


@lru_cache(maxsize=64)
def sampler_for(params: SamplingParams) -> TokenSampler:
    """The sampler for `params`; requests that share parameters share it, and are sampled in one batch."""
    return TokenSampler(params)


def logprobs_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of `tokens` (B,) under `logits` (B, V) at temperature 1: (B,) float32."""
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)
