"""The operators as PyTorch sees them: registered with `torch.library`, so that `torch.compile` keeps them as one node.

Each takes plain tensors (a `PolarPoints` as its direction and radius) and decides on its backend when it runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lapha.kernels.knn_torch import knn_forward
from lapha.kernels.nearest_torch import nearest_forward
from lapha.kernels.pairwise_backward import pairwise_backward
from lapha.kernels.pairwise_torch import pairwise_forward
from lapha.kernels.pooling_torch import (
    Pooled,
    PoolInputs,
    offsets_within,
    pool_backward,
    pool_forward,
    sequence_of_token,
    summing_dtype,
)
from lapha.kernels.precision import get_precision
from lapha.kernels.registry import choose, on_device
from lapha.kernels.valid import Latents, computing_dtype


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
    with on_device(u.device):
        return forward(latents, get_precision(precision))


@pairwise_dist_op.register_fake
def _(u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, backend: str, precision: str) -> Tensor:
    return u.new_empty(u.shape[0], t.shape[0], dtype=computing_dtype(u, t, a, b))


@torch.library.custom_op("lapha::pairwise_dist_backward", mutates_args=())
def pairwise_dist_backward_op(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, distance: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to u, a, t, b."""
    with on_device(u.device):
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


def run_nearest(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    """What `nearest_op` does; called as it is where nothing traces, which saves the dispatcher's part of a small call."""
    choice = choose("nearest", u.device, computing_dtype(u, t, a, b), backend, precision)
    latents = Latents(u, a, t, b, curvature)
    if choice.backend == "torch":
        return nearest_forward(latents, get_precision(precision))
    from lapha.kernels import nearest_triton

    with on_device(u.device):
        return nearest_triton.nearest_forward(latents, get_precision(precision))


def is_plain(*tensors: Tensor) -> bool:
    """Whether operators can be bypassed: no compilation, no transform, no mode or subclass that wants to see them."""
    if torch.compiler.is_compiling() or torch.utils._python_dispatch._len_torch_dispatch_stack():
        return False
    return all(
        type(z) in (Tensor, torch.nn.Parameter) and not torch._C._functorch.is_functorch_wrapped_tensor(z)
        for z in tensors
    )


@torch.library.custom_op("lapha::nearest", mutates_args=())
def nearest_op(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, curvature: float, backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    """Distance (N,) and index (N,) of the latent of (t, b) nearest to each of (u, a)."""
    return run_nearest(u, a, t, b, curvature, backend, precision)


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
    with on_device(u.device):
        return knn_forward(Latents(u, a, t, b, curvature), k, get_precision(precision), forward)


@knn_op.register_fake
def _(
    u: Tensor, a: Tensor, t: Tensor, b: Tensor, k: int, curvature: float, backend: str, precision: str
) -> tuple[Tensor, Tensor]:
    dtype = computing_dtype(u, t, a, b)
    return u.new_empty(u.shape[0], k, dtype=dtype), u.new_empty(u.shape[0], k, dtype=torch.int64)


@torch.library.custom_op("lapha::pool_latents", mutates_args=())
def pool_latents_op(
    hidden: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    root: Tensor | None,
    running_sum: Tensor | None,
    running_count: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sum, count, mean, direction and radius; the last two are empty without a root."""
    choice = choose("pool_latents", hidden.device, hidden.dtype, backend)
    if choice.backend == "triton":
        from lapha.kernels.pooling_triton import pool_forward as forward
    else:
        forward = pool_forward
    cu_seqlens = None if cu_seqlens is None else offsets_within(cu_seqlens, hidden.shape[0])
    with on_device(hidden.device):
        pooled = forward(PoolInputs(hidden, mask, cu_seqlens, root, running_sum, running_count))
    if pooled.direction is None or pooled.radius is None:
        return pooled.sum, pooled.tokens, pooled.mean, pooled.sum.new_empty(0), pooled.sum.new_empty(0)
    return pooled.sum, pooled.tokens, pooled.mean, pooled.direction, pooled.radius


@pool_latents_op.register_fake
def _(
    hidden: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    root: Tensor | None,
    running_sum: Tensor | None,
    running_count: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch = hidden.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    total = hidden.new_empty(batch, hidden.shape[-1], dtype=summing_dtype(hidden))
    count = hidden.new_empty(batch, dtype=torch.int64)
    if root is None:
        return total, count, torch.empty_like(total), total.new_empty(0), total.new_empty(0)
    return total, count, torch.empty_like(total), torch.empty_like(total), total.new_empty(batch)


def _pool_context(ctx: Any, inputs: tuple, output: tuple) -> None:
    hidden, mask, cu_seqlens, root, running_sum, _, _ = inputs
    _, count, mean, direction, radius = output
    ctx.dtype, ctx.shape = hidden.dtype, hidden.shape
    ctx.root = None if root is None else (root.dtype, root.dim())
    ctx.running = running_sum is not None
    ctx.mark_non_differentiable(count)
    ctx.save_for_backward(mask, cu_seqlens, count, mean, direction, radius)


def _pool_grad(
    ctx: Any, grad_sum: Tensor, _: Tensor, grad_mean: Tensor, grad_direction: Tensor, grad_radius: Tensor
) -> tuple:
    mask, cu_seqlens, count, mean, direction, radius = ctx.saved_tensors
    centred = ctx.root is not None
    pooled = Pooled(mean, count, mean, direction if centred else None, radius if centred else None)
    grad, grad_centre = pool_backward(pooled, grad_sum, grad_mean, grad_direction, grad_radius)
    # narrowed first: what is written is one copy of the gradient of the hidden states, in their own dtype
    narrow = grad.to(ctx.dtype)
    if cu_seqlens is not None:
        sequence = sequence_of_token(offsets_within(cu_seqlens, ctx.shape[0]), ctx.shape[0])
        grad_hidden = torch.where((sequence >= 0)[:, None], narrow[sequence.clamp_min(0)], 0)
    elif mask is None:
        grad_hidden = narrow[:, None, :].expand(ctx.shape)
    else:
        grad_hidden = torch.where(mask[:, :, None], narrow[:, None, :], 0)
    grad_root = None
    if centred and grad_centre is not None:
        dtype, dims = ctx.root
        grad_root = (grad_centre.sum(0) if dims == 1 else grad_centre).to(dtype)
    return grad_hidden, None, None, grad_root, grad if ctx.running else None, None, None


pool_latents_op.register_autograd(_pool_grad, setup_context=_pool_context)
