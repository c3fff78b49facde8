"""Public functions on latents and hidden states: they check their arguments and call the operators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lapha._checks import check, check_choice, check_finite, check_float_tensor
from lapha.geometry import PolarPoints, dist
from lapha.geometry.points import check_same_space
from lapha.kernels import ops
from lapha.kernels.pooling_torch import summing_dtype
from lapha.kernels.precision import PRECISIONS
from lapha.kernels.registry import BACKENDS


def pairwise_dist(
    X: PolarPoints,
    Y: PolarPoints | None = None,
    *,
    backend: str = "auto",
    precision: str = "ieee",
    validate: bool = False,
) -> Tensor:
    """All geodesic distances between two sets of latents, or within one.

    Args:
        X: (N,) latents.
        Y: (M,) latents of the same space; X itself if None.
        backend: ``"auto"``, ``"torch"`` or ``"triton"``; see `last_choice` for what ran.
        precision: arithmetic of the inner products. ``"ieee"`` and ``"tf32x3"``: relative error at most 2e-6 (1e-5
            for pairs closer than 1e-4); ``"bf16"``: about 1e-3.
        validate: also raise on NaN, Inf, negative radii and directions that are not unit length (waits for the device).

    Returns:
        (N, M) distances >= 0, float32 (float64 for float64 latents), exactly 0 between identical latents. NaN in the row
        and column of what is no point: NaN or Inf, a negative radius, a direction of length 0. Differentiable once,
        with respect to directions and radii.

    Raises:
        ValueError: shapes other than (N,) and (M,); another dimension, dtype, device or curvature; an unknown name; a
            backend or precision that cannot run here.
        MissingExtraError: the triton backend is asked for and triton is not installed.
    """
    Y = X if Y is None else Y
    _check_latents(X, Y, backend, precision, validate)
    return ops.pairwise_dist_op(X.direction, X.radius, Y.direction, Y.radius, X.curvature, backend, precision)


def nearest(
    X: PolarPoints, Y: PolarPoints, *, backend: str = "auto", precision: str = "ieee", validate: bool = False
) -> tuple[Tensor, Tensor]:
    """The latent of Y that is nearest to each latent of X. No N × M array is held.

    Args:
        X: (N,) latents.
        Y: (M,) latents of the same space, M >= 1.
        backend, precision, validate: as for `pairwise_dist`.

    Returns:
        Distances (N,), differentiable as `pairwise_dist`, and indices into Y (N,) int64. Of several latents at the
        same distance the first is taken; the returned one is nearest up to the precision's error. What is no point (see
        `pairwise_dist`) is never nearest; NaN and −1 are returned for it, and where Y holds nothing else.

    Raises:
        ValueError: as for `pairwise_dist`; an empty Y.
    """
    _check_latents(X, Y, backend, precision, validate)
    check(len(Y) >= 1, "Y", "at least one latent", "none")
    arguments = _detached(X, Y)
    with torch.no_grad():
        run = ops.run_nearest if ops.is_plain(*arguments) else ops.nearest_op
        distance, index = run(*arguments, X.curvature, backend, precision)
    if _needs_grad(X, Y):
        distance = _differentiable(X, Y, index)
    return distance, index


def knn(
    X: PolarPoints, Y: PolarPoints, k: int, *, backend: str = "auto", precision: str = "ieee", validate: bool = False
) -> tuple[Tensor, Tensor]:
    """The k latents of Y that are nearest to each latent of X. No N × M array is held.

    Args:
        X: (N,) latents.
        Y: (M,) latents of the same space.
        k: 1 <= k <= M.
        backend, precision, validate: as for `pairwise_dist`.

    Returns:
        Distances (N, k), ascending, differentiable as `pairwise_dist`, and indices into Y (N, k) int64. Equal
        distances come in the order of their indices; which of several at the last place is taken is left open. What is
        no point is left out, as in `nearest`: NaN and −1 in its own row, and where Y has fewer than k points.

    Raises:
        ValueError: as for `pairwise_dist`; a k that is not in [1, M].
    """
    _check_latents(X, Y, backend, precision, validate)
    good = isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= len(Y)
    check(good, "k", f"an integer in [1, {len(Y)}] (the number of latents in Y)", k)
    distance, index = ops.knn_op(*_detached(X, Y), k, X.curvature, backend, precision)
    if _needs_grad(X, Y):
        distance = _differentiable(X[:, None], Y, index)
    return distance, index


@dataclass(frozen=True, slots=True, eq=False)
class PooledLatents:
    """What pooling returns.

    Attributes:
        sum: (B, H) running sum of hidden states over the tokens that count, float32 (float64 for float64).
        count: (B,) int64 number of those tokens.
        mean: (B, H) h(s) = sum / count; zeros where no token counts.
        points: (B,) root-centred latents, direction and radius of (h(s) − h_root)/√H, or None without a root. The
            origin where no token counts.
    """

    sum: Tensor
    count: Tensor
    mean: Tensor
    points: PolarPoints | None


def pool_latents(
    hidden: Tensor,
    mask: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    root: Tensor | None = None,
    running_sum: Tensor | None = None,
    running_count: Tensor | None = None,
    curvature: float = 1.0,
    backend: str = "auto",
    validate: bool = False,
) -> PooledLatents:
    """Pool hidden states into latents in one pass over them, whole or on top of a parent's running sum.

    Args:
        hidden: (B, L, H) padded, or with `cu_seqlens` (T, H) packed: sequences end to end. Any floating dtype.
        mask: (B, L) bool or integer, true at tokens that count; all count if None. Padded form only. What the other
            positions hold does not matter, NaN included.
        cu_seqlens: (B + 1,) integers, not decreasing: sequence i is hidden[cu_seqlens[i] : cu_seqlens[i + 1]].
            Wrong ones raise on a CPU, and with `validate`; on a GPU what lies past the tokens is cut off.
        root: (H,) or (B, H) pooled state of the root, h_root.
        running_sum: (B, H) sum over the tokens before these, added to theirs; needs `running_count`.
        running_count: (B,) their number.
        curvature: c > 0 of the latents' space.
        backend: as for `pairwise_dist`.
        validate: also raise on NaN and Inf among tokens that count, and on wrong `cu_seqlens` (waits for the device).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit together; one running argument without the other; what
            `validate` finds.
    """
    check_float_tensor(hidden, "hidden", 3 if cu_seqlens is None else 2)
    check_choice(backend, "backend", BACKENDS)
    if cu_seqlens is None:
        batch = hidden.shape[0]
        mask = None if mask is None else _token_mask(hidden, mask)
    else:
        check(mask is None, "mask", "None with cu_seqlens (packed sequences have no padding)", "a mask")
        _check_cu_seqlens(cu_seqlens, hidden, validate)
        batch = cu_seqlens.shape[0] - 1
    shape = (batch, hidden.shape[-1])
    _check_running(running_sum, running_count, hidden, shape)
    if root is not None:
        _check_root(root, hidden, shape)
    total, count, mean, direction, radius = ops.pool_latents_op(
        hidden, mask, cu_seqlens, root, running_sum, running_count, backend
    )
    if validate:
        check_finite(total, "hidden")
    return PooledLatents(total, count, mean, None if root is None else PolarPoints(direction, radius, curvature))


def _check_root(root: Tensor, hidden: Tensor, shape: tuple[int, int]) -> None:
    check_float_tensor(root, "root")
    good = tuple(root.shape) in (shape[1:], shape)
    check(good, "root", f"shape ({shape[1]},) or {shape}", f"shape {tuple(root.shape)}")
    check(root.device == hidden.device, "root", f"device {hidden.device}", root.device)


def _check_running(
    running_sum: Tensor | None, running_count: Tensor | None, hidden: Tensor, shape: tuple[int, int]
) -> None:
    together = (running_sum is None) == (running_count is None)
    check(together, "running_sum", "given together with running_count", "one without the other")
    if running_sum is not None and running_count is not None:
        _check_tensor(running_sum, "running_sum", shape, summing_dtype(hidden), hidden.device)
        _check_tensor(running_count, "running_count", shape[:1], torch.int64, hidden.device)


def _token_mask(hidden: Tensor, mask: Tensor) -> Tensor:
    """`mask` as bool (B, L)."""
    shape = hidden.shape[:2]
    check(isinstance(mask, Tensor), "mask", "a torch.Tensor", type(mask).__name__)
    check(mask.shape == shape, "mask", f"shape {tuple(shape)}", f"shape {tuple(mask.shape)}")
    check(not mask.is_floating_point(), "mask", "bool or integers", mask.dtype)
    check(mask.device == hidden.device, "mask", f"device {hidden.device}", mask.device)
    return mask.bool()


def _check_cu_seqlens(cu_seqlens: Tensor, hidden: Tensor, validate: bool) -> None:
    check(isinstance(cu_seqlens, Tensor), "cu_seqlens", "a torch.Tensor", type(cu_seqlens).__name__)
    good = cu_seqlens.dim() == 1 and cu_seqlens.shape[0] >= 1
    check(good, "cu_seqlens", "shape (B + 1,)", f"shape {tuple(cu_seqlens.shape)}")
    check(cu_seqlens.dtype in (torch.int32, torch.int64), "cu_seqlens", "int32 or int64", cu_seqlens.dtype)
    check(cu_seqlens.device == hidden.device, "cu_seqlens", f"device {hidden.device}", cu_seqlens.device)
    # on a CPU looking is cheap; elsewhere it waits for the device, and offsets past the tokens are cut off
    if validate or (cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling()):
        ordered = bool((cu_seqlens.diff() >= 0).all()) and int(cu_seqlens[0]) >= 0
        good = ordered and int(cu_seqlens[-1]) <= hidden.shape[0]
        check(good, "cu_seqlens", f"numbers that do not decrease, in [0, {hidden.shape[0]}]", cu_seqlens.tolist())


def _check_tensor(given: Tensor, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    check(isinstance(given, Tensor), name, "a torch.Tensor", type(given).__name__)
    check(tuple(given.shape) == shape, name, f"shape {shape}", f"shape {tuple(given.shape)}")
    check(given.dtype == dtype, name, f"dtype {dtype}", given.dtype)
    check(given.device == device, name, f"device {device}", given.device)


def _check_latents(X: PolarPoints, Y: PolarPoints, backend: str, precision: str, validate: bool) -> None:
    check_same_space(X, Y)
    for points, name in ((X, "X"), (Y, "Y")):
        check(points.radius.dim() == 1, name, "batch shape (N,)", f"shape {tuple(points.shape)}")
    check_choice(backend, "backend", BACKENDS)
    check_choice(precision, "precision", PRECISIONS)
    if validate:
        X.validate("X")
        Y.validate("Y")


def _detached(X: PolarPoints, Y: PolarPoints) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return X.direction.detach(), X.radius.detach(), Y.direction.detach(), Y.radius.detach()


def _differentiable(X: PolarPoints, Y: PolarPoints, index: Tensor) -> Tensor:
    """Distances of X to Y[index], NaN where the index is −1."""
    found = index >= 0
    return torch.where(found, dist(X, Y[torch.where(found, index, 0)]), torch.nan)


def _needs_grad(X: PolarPoints, Y: PolarPoints) -> bool:
    tensors = (X.direction, X.radius, Y.direction, Y.radius)
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
