"""The operators as PyTorch sees them: registered with `torch.library`, so that `torch.compile` keeps them as one node.

Each takes plain tensors (a `PolarPoints` as its direction and radius) and decides on its backend when it runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lapha.kernels.nearest_torch import knn_forward, nearest_forward
from lapha.kernels.pairwise_backward import pairwise_backward
from lapha.kernels.pairwise_torch import Latents, computing_dtype, pairwise_forward
from lapha.kernels.pooling_torch import (
    pool_sum_forward,
    pool_sum_packed_forward,
    sequence_of_token,
    summing_dtype,
)
from lapha.kernels.precision import get_precision
from lapha.kernels.registry import choose


@torch.library.custom_op("lapha::pairwise_dist", mutates_args=())
def pairwise_dist_op(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, backend: str, precision: str
) -> Tensor:
    """(N, M) distances of (u (N, D), a (N,)) and (t (M, D), b (M,))."""
    choice = choose("pairwise_dist", u.device, computing_dtype(u, t, a, b), backend, precision)
    latents = Latents(u, a, t, b, curvature)
    if choice.backend == "triton":
        from lapha.kernels.pairwise_triton import pairwise_forward as forward
    else:
        forward = pairwise_forward
    return forward(latents, get_precision(precision))


@pairwise_dist_op.register_fake
def _(u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, backend: str, precision: str) -> Tensor:
    return u.new_empty(u.shape[0], t.shape[0], dtype=computing_dtype(u, t, a, b))


@torch.library.custom_op("lapha::pairwise_dist_backward", mutates_args=())
def pairwise_dist_backward_op(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, distance: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to u, a, t, b."""
    return pairwise_backward(Latents(u, a, t, b, curvature), distance, grad)


@pairwise_dist_backward_op.register_fake
def _(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, distance: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(u), torch.empty_like(a), torch.empty_like(t), torch.empty_like(b)


def _pairwise_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    u, a, t, b, ctx.curvature, _, _ = inputs
    ctx.save_for_backward(u, a, t, b, output)


def _pairwise_grad(ctx: Any, grad: Tensor) -> tuple:
    u, a, t, b, distance = ctx.saved_tensors
    grads = pairwise_dist_backward_op(u, a, t, b, ctx.curvature, distance, grad)
    return *grads, None, None, None


pairwise_dist_op.register_autograd(_pairwise_grad, setup_context=_pairwise_context)


@torch.library.custom_op("lapha::nearest", mutates_args=())
def nearest_op(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    """Distance (N,) and index (N,) of the latent of (t, b) nearest to each of (u, a)."""
    choice = choose("nearest", u.device, computing_dtype(u, t, a, b), backend, precision)
    latents = Latents(u, a, t, b, curvature)
    if choice.backend == "triton":
        from lapha.kernels.nearest_triton import nearest_forward as forward
    else:
        forward = nearest_forward
    return forward(latents, get_precision(precision))


@nearest_op.register_fake
def _(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    dtype = computing_dtype(u, t, a, b)
    return u.new_empty(u.shape[0], dtype=dtype), u.new_empty(u.shape[0], dtype=torch.int64)


@torch.library.custom_op("lapha::knn", mutates_args=())
def knn_op(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, k: int, curvature: float, backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    """Distances (N, k) and indices (N, k) of the k latents of (t, b) nearest to each of (u, a)."""
    choice = choose("knn", u.device, computing_dtype(u, t, a, b), backend, precision)
    if choice.backend == "triton":
        from lapha.kernels.pairwise_triton import pairwise_forward as forward
    else:
        forward = pairwise_forward
    return knn_forward(Latents(u, a, t, b, curvature), k, get_precision(precision), forward)


@knn_op.register_fake
def _(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, k: int, curvature: float, backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    dtype = computing_dtype(u, t, a, b)
    return u.new_empty(u.shape[0], k, dtype=dtype), u.new_empty(u.shape[0], k, dtype=torch.int64)


@torch.library.custom_op("lapha::pool_sum", mutates_args=())
def pool_sum_op(hidden: Tensor, mask: Tensor, backend: str) -> Tensor:
    """(B, L, H) and bool (B, L) → (B, H) sums over the tokens that count."""
    choice = choose("pool_latents", hidden.device, hidden.dtype, backend)
    if choice.backend == "triton":
        from lapha.kernels.pooling_triton import pool_sum_forward as forward
    else:
        forward = pool_sum_forward
    return forward(hidden, mask)


@pool_sum_op.register_fake
def _(hidden: Tensor, mask: Tensor, backend: str) -> Tensor:
    return hidden.new_empty(hidden.shape[0], hidden.shape[2], dtype=summing_dtype(hidden))


def _pool_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    hidden, mask, _ = inputs
    ctx.dtype = hidden.dtype
    ctx.save_for_backward(mask)


def _pool_grad(ctx: Any, grad: Tensor) -> tuple:
    (mask,) = ctx.saved_tensors
    # narrowed first: what is written is one copy of the gradient of the hidden states, in their own dtype
    return torch.where(mask[:, :, None], grad.to(ctx.dtype)[:, None, :], 0), None, None


pool_sum_op.register_autograd(_pool_grad, setup_context=_pool_context)


@torch.library.custom_op("lapha::pool_sum_packed", mutates_args=())
def pool_sum_packed_op(hidden: Tensor, cu_seqlens: Tensor, backend: str) -> Tensor:
    """(T, H) and cu_seqlens (B + 1,) → (B, H) sums."""
    choice = choose("pool_latents", hidden.device, hidden.dtype, backend)
    if choice.backend == "triton":
        from lapha.kernels.pooling_triton import pool_sum_packed_forward as forward
    else:
        forward = pool_sum_packed_forward
    return forward(hidden, cu_seqlens)


@pool_sum_packed_op.register_fake
def _(hidden: Tensor, cu_seqlens: Tensor, backend: str) -> Tensor:
    return hidden.new_empty(cu_seqlens.shape[0] - 1, hidden.shape[1], dtype=summing_dtype(hidden))


def _pool_packed_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    hidden, cu_seqlens, _ = inputs
    ctx.dtype, ctx.tokens = hidden.dtype, hidden.shape[0]
    ctx.save_for_backward(cu_seqlens)


def _pool_packed_grad(ctx: Any, grad: Tensor) -> tuple:
    (cu_seqlens,) = ctx.saved_tensors
    sequence = sequence_of_token(cu_seqlens, ctx.tokens)
    rows = grad.to(ctx.dtype)[sequence.clamp_min(0)]
    return torch.where((sequence >= 0)[:, None], rows, 0), None, None


pool_sum_packed_op.register_autograd(_pool_packed_grad, setup_context=_pool_packed_context)
