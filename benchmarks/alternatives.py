"""The other ways to get hyperbolic distances: what people write, and what other libraries offer.

Each function takes ball points x (N, D) and y (M, D) and returns a name and either a function that computes the (N, M)
distances or the reason why it cannot.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import torch

Alternative = tuple[str, Callable[[], Any] | str]

# geoopt broadcasts: it holds a few arrays of N × M × D
_BROADCAST_BYTES = 2 << 30


def ball_formula(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The Poincaré ball's distance as it is usually written for matrices of points, in the points' own dtype."""
    xx, yy = x.square().sum(1), y.square().sum(1)
    square = (xx[:, None] + yy[None, :] - 2 * x @ y.T).clamp_min(0)
    return torch.acosh(1 + 2 * square / ((1 - xx)[:, None] * (1 - yy)[None, :]))


def ball_pairwise(x: torch.Tensor, y: torch.Tensor) -> Alternative:
    """The ball formula, eager."""
    return "ball formula", lambda: ball_formula(x, y)


def compiled_ball_pairwise(x: torch.Tensor, y: torch.Tensor) -> Alternative:
    """The ball formula under torch.compile."""
    name = "ball formula, torch.compile"
    if not _can_compile(x.device):
        return name, "no C++ compiler"
    compiled = functools.cache(lambda: torch.compile(ball_formula, dynamic=False))
    return name, lambda: compiled()(x, y)


def geoopt_pairwise(x: torch.Tensor, y: torch.Tensor) -> Alternative:
    """geoopt's `dist`, broadcast over all pairs."""
    if importlib.util.find_spec("geoopt") is None:
        return "geoopt broadcast", "not installed"
    needed = 4 * x.shape[0] * y.shape[0] * x.shape[1]
    if needed > _BROADCAST_BYTES:
        return "geoopt broadcast", f"an N × M × D array would take {needed / 1e9:.1f} GB"
    import geoopt

    ball = geoopt.PoincareBall()
    return "geoopt broadcast", lambda: ball.dist(x[:, None], y[None, :])


def keops_pairwise(x: torch.Tensor, y: torch.Tensor) -> Alternative:
    """KeOps is for reductions."""
    if not _has_keops():
        return "KeOps", "not installed"
    return "KeOps", "has no N × M result: see the nearest suite"


def ball_nearest(x: torch.Tensor, y: torch.Tensor) -> Alternative:
    """The ball formula, then a minimum."""
    return "ball formula", lambda: ball_formula(x, y).min(dim=1)


def compiled_ball_nearest(x: torch.Tensor, y: torch.Tensor) -> Alternative:
    """The ball formula and the minimum under torch.compile."""
    name = "ball formula, torch.compile"
    if not _can_compile(x.device):
        return name, "no C++ compiler"
    compiled = functools.cache(lambda: torch.compile(lambda x, y: ball_formula(x, y).min(dim=1), dynamic=False))
    return name, lambda: compiled()(x, y)


def ball_knn(x: torch.Tensor, y: torch.Tensor, k: int) -> Alternative:
    """The ball formula, then topk."""
    return "ball formula", lambda: ball_formula(x, y).topk(k, dim=1, largest=False)


def keops_nearest(x: torch.Tensor, y: torch.Tensor) -> Alternative:
    """KeOps: the reduction that it is made for."""
    if not _has_keops():
        return "KeOps", "not installed"
    return "KeOps", lambda: tuple(part[:, 0] for part in _keops_formula(x, y).min_argmin(dim=1))


def keops_knn(x: torch.Tensor, y: torch.Tensor, k: int) -> Alternative:
    """KeOps' k smallest."""
    if not _has_keops():
        return "KeOps", "not installed"
    return "KeOps", lambda: _keops_formula(x, y).Kmin_argKmin(k, dim=1)


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor, root: torch.Tensor) -> Alternative:
    """A masked mean in float32, then the latent's direction and radius."""
    return "masked float32 mean", lambda: _masked_mean(hidden, mask, root)


def compiled_masked_mean(hidden: torch.Tensor, mask: torch.Tensor, root: torch.Tensor) -> Alternative:
    """The same under torch.compile."""
    name = "masked float32 mean, torch.compile"
    if not _can_compile(hidden.device):
        return name, "no C++ compiler"
    compiled = functools.cache(lambda: torch.compile(_masked_mean, dynamic=False))
    return name, lambda: compiled()(hidden, mask, root)


def _masked_mean(hidden: torch.Tensor, mask: torch.Tensor, root: torch.Tensor) -> tuple[torch.Tensor, ...]:
    weight = mask.float()[:, :, None]
    mean = (hidden.float() * weight).sum(1) / weight.sum(1)
    tangent = (mean - root) / mean.shape[1] ** 0.5
    radius = tangent.norm(dim=1)
    return mean, tangent / radius[:, None], radius


def _keops_formula(x: torch.Tensor, y: torch.Tensor) -> Any:
    from pykeops.torch import LazyTensor

    rows, columns = LazyTensor(x[:, None, :].contiguous()), LazyTensor(y[None, :, :].contiguous())
    x_part = LazyTensor((1 - x.square().sum(1))[:, None, None].contiguous())
    y_part = LazyTensor((1 - y.square().sum(1))[None, :, None].contiguous())
    z = 1 + 2 * ((rows - columns) ** 2).sum(-1) / (x_part * y_part)
    return (z + (z * z - 1).relu().sqrt()).log()


def _has_keops() -> bool:
    return importlib.util.find_spec("pykeops") is not None


def _can_compile(device: torch.device) -> bool:
    return device.type == "cuda" or any(shutil.which(name) is not None for name in ("g++", "clang++"))
