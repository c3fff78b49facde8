"""From hidden states to latents: h(s), whole or incremental, and the root-centred tangent v(s).

A causal LM's hidden states of a prefix do not change when tokens are appended. So h(s), the mean over the tokens of
a state, comes from a running sum and a count: a child's are its parent's plus those of the new tokens alone. These
are the simple torch forms; `lapha.kernels.pool_latents` does the same at scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lapha._checks import check, check_float_tensor
from lapha._typed import typed
from lapha.geometry import PolarPoints


def _masked_sum(hidden: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(…, L, H) → float32 sum (…, H) over the tokens that count, and how many those are, int64 (…)."""
    if mask is None:
        count = torch.full(hidden.shape[:-2], hidden.shape[-2], dtype=torch.int64, device=hidden.device)
        return hidden.sum(dim=-2, dtype=torch.float32), count
    check(isinstance(mask, torch.Tensor), "mask", "a torch.Tensor", type(mask).__name__)
    check(mask.shape == hidden.shape[:-1], "mask", f"shape {tuple(hidden.shape[:-1])}", f"shape {tuple(mask.shape)}")
    counted = mask.to(device=hidden.device, dtype=torch.bool)
    # masked_fill, not a product: padding positions may hold NaN, and NaN · 0 is NaN
    kept = hidden.masked_fill(~counted.unsqueeze(-1), 0)
    return kept.sum(dim=-2, dtype=torch.float32), counted.sum(dim=-1)


@typed
def pool_hidden(hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """h(s): the mean hidden state over a state's tokens (method: state, latent, root).

    Args:
        hidden: (B, L, H) or (L, H) hidden states after the model's final norm, any float dtype.
        mask: same shape without H; True (or non-zero) at tokens that belong to the state. None counts all.

    Returns:
        (B, H) or (H,) float32.

    Raises:
        ValueError: wrong shapes or dtype, or a row in which no token counts.
    """
    check_float_tensor(hidden, "hidden")
    check(hidden.dim() in (2, 3), "hidden", "shape (B, L, H) or (L, H)", f"shape {tuple(hidden.shape)}")
    total, count = _masked_sum(hidden, mask)
    check(bool((count > 0).all()), "mask", "at least one token in every row", "a row without any")
    return total / count.unsqueeze(-1)


@dataclass(frozen=True, slots=True)
class RunningMean:
    """A running sum of hidden states and their number, from which h(s) follows. Immutable: children share a parent's.

    Attributes:
        sum: (…, H) float32.
        count: (…,) int64, tokens summed so far.
    """

    sum: torch.Tensor
    count: torch.Tensor

    @classmethod
    def empty(cls, hidden_size: int, device: torch.device | str = "cpu") -> RunningMean:
        """No token yet: a sum of shape (H,) and a count of shape ()."""
        check(hidden_size >= 1, "hidden_size", "an integer >= 1", hidden_size)
        zero = torch.zeros(hidden_size, dtype=torch.float32, device=device)
        return cls(zero, torch.zeros((), dtype=torch.int64, device=device))

    def extend(self, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> RunningMean:
        """The running mean after more tokens.

        Args:
            hidden: (…, L, H) hidden states of the new tokens; leading dimensions broadcast against this sum's, so one
                parent extends to a batch of siblings at once.
            mask: (…, L), True at tokens that count. None counts all.

        Raises:
            ValueError: wrong shapes or dtype.
        """
        check_float_tensor(hidden, "hidden")
        size = self.sum.shape[-1]
        good = hidden.dim() >= 2 and hidden.shape[-1] == size
        check(good, "hidden", f"shape (…, L, {size})", f"shape {tuple(hidden.shape)}")
        total, count = _masked_sum(hidden, mask)
        return RunningMean(self.sum + total, self.count + count)

    @property
    def mean(self) -> torch.Tensor:
        """h(s), (…, H) float32.

        Raises:
            ValueError: no token was summed.
        """
        check(bool((self.count > 0).all()), "count", "at least one token", "0")
        return self.sum / self.count.unsqueeze(-1)


def tangent(h: torch.Tensor, h_root: torch.Tensor) -> torch.Tensor:
    """v(s) = (h(s) − h_root) / √H, in float32 or better (method: state, latent, root).

    Args:
        h: (…, H) pooled states.
        h_root: (H,) pooled state of the prompt alone, or any shape that broadcasts against `h`.

    Raises:
        ValueError: dtypes that are not floating point, or sizes H that differ.
    """
    check_float_tensor(h, "h")
    check_float_tensor(h_root, "h_root")
    check(h.dim() >= 1, "h", "shape (…, H)", "shape ()")
    good = h_root.dim() >= 1 and h_root.shape[-1] == h.shape[-1]
    check(good, "h_root", f"shape (…, {h.shape[-1]})", f"shape {tuple(h_root.shape)}")
    dtype = torch.promote_types(torch.promote_types(h.dtype, h_root.dtype), torch.float32)
    return (h.to(dtype) - h_root.to(dtype)) / math.sqrt(h.shape[-1])


def latent_points(h: torch.Tensor, h_root: torch.Tensor, curvature: float = 1.0) -> PolarPoints:
    """Root-centred Poincaré latents y(s) = exp₀(v(s)) as direction and radius.

    Args:
        h: (N, H) pooled states.
        h_root: (H,) pooled root state; the root itself becomes the origin.
        curvature: c > 0; the space has curvature −c.

    Raises:
        ValueError: see `tangent`; a curvature that is not positive.
    """
    return PolarPoints.from_tangent(tangent(h, h_root), curvature=curvature)
