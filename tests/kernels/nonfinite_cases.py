"""What is no point, in every operator: it must affect its own row or column, and nothing else. For both back ends."""

from __future__ import annotations

import math

import torch

from lapha.geometry import PolarPoints
from lapha.kernels import knn, nearest, pairwise_dist

# Each makes one latent of (direction (N, D), radius (N,)) none.
FAULTS = {
    "NaN in a direction": lambda u, a, i: u[i].__setitem__(1, math.nan),
    "Inf in a direction": lambda u, a, i: u[i].__setitem__(0, math.inf),
    "-Inf in a direction": lambda u, a, i: u[i].__setitem__(-1, -math.inf),
    "a direction of length 0": lambda u, a, i: u[i].zero_(),
    "NaN radius": lambda u, a, i: a.__setitem__(i, math.nan),
    "Inf radius": lambda u, a, i: a.__setitem__(i, math.inf),
    "-Inf radius": lambda u, a, i: a.__setitem__(i, -math.inf),
    "negative radius": lambda u, a, i: a.__setitem__(i, -0.5),
}


def points(count: int, dim: int, seed: int, dtype: torch.dtype = torch.float32, twins: bool = True) -> PolarPoints:
    """Half of them in a tight cluster, so that second passes run too; with `twins`, two are equal."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, dim, generator=generator)
    v[: count // 2] = torch.ones(dim) + 0.05 * v[: count // 2]
    if twins and count > 4:
        v[3] = v[1]
    return PolarPoints.from_tangent((v / dim**0.5).to(dtype))


def spoiled(X: PolarPoints, fault: str, rows: list[int]) -> PolarPoints:
    """A copy in which some latents are no points."""
    direction, radius = X.direction.clone(), X.radius.clone()
    for row in rows:
        FAULTS[fault](direction, radius, row)
    return PolarPoints(direction, radius, X.curvature)


def spoiled_in_all_ways(X: PolarPoints, rows: list[int]) -> PolarPoints:
    """A copy in which each of `rows` is none for a reason of its own."""
    for fault, row in zip(FAULTS, rows, strict=True):
        X = spoiled(X, fault, [row])
    return X


def kept(X: PolarPoints, rows: list[int]) -> tuple[PolarPoints, torch.Tensor]:
    """The other latents, and where they are."""
    place = torch.tensor([i for i in range(len(X)) if i not in rows], dtype=torch.int64)
    return X[place], place


def check_forward(X: PolarPoints, Y: PolarPoints, bad_x: list[int], bad_y: list[int], **how: str) -> None:
    """Every operator against itself on the good latents alone."""
    good_x, at_x = kept(X, bad_x)
    good_y, at_y = kept(Y, bad_y)
    close = {"rtol": 3e-6 if how.get("precision") != "bf16" else 2e-3, "atol": 1e-7}
    distance = pairwise_dist(X, Y, **how)
    torch.testing.assert_close(distance[at_x][:, at_y], pairwise_dist(good_x, good_y, **how), **close)
    assert distance[bad_x].isnan().all()
    assert distance[:, bad_y].isnan().all()

    k = len(good_y) + 1 if bad_y else len(good_y)
    for function, width in ((nearest, ()), (lambda *a, **h: knn(*a, k, **h), (k,))):
        got, index = function(X, Y, **how)
        assert got.shape == index.shape == (len(X), *width)
        assert got[bad_x].isnan().all()
        assert (index[bad_x] == -1).all()
        near = exact(good_x, good_y).sort(dim=1).values
        shape = (len(at_x), *width) if width else (len(at_x), 1)
        got, index = got[at_x].reshape(shape), index[at_x].reshape(shape)
        found = min(got.shape[1], len(good_y))
        torch.testing.assert_close(got[:, :found].double(), near[:, :found], **close)
        assert torch.isin(index[:, :found], at_y).all()
        assert got[:, found:].isnan().all()
        assert (index[:, found:] == -1).all()
        chosen = exact(good_x, Y).gather(1, index[:, :found])
        torch.testing.assert_close(chosen, near[:, :found], **close)


def exact(X: PolarPoints, Y: PolarPoints) -> torch.Tensor:
    from lapha.geometry import pairwise_dist as plain

    return plain(*(PolarPoints(p.direction.double(), p.radius.double(), p.curvature) for p in (X, Y)))


def gradients(function, X: PolarPoints, Y: PolarPoints) -> list[torch.Tensor]:
    """Of the sum of what is not NaN, by all four tensors; NaN takes part with a gradient of 1 as well."""
    tensors = [z.detach().clone().requires_grad_() for z in (X.direction, X.radius, Y.direction, Y.radius)]
    result = function(PolarPoints(*tensors[:2]), PolarPoints(*tensors[2:]))
    result.sum().backward()
    return [tensor.grad for tensor in tensors]


def check_backward(function, X: PolarPoints, Y: PolarPoints, bad_x: list[int], bad_y: list[int]) -> None:
    good_x, at_x = kept(X, bad_x)
    good_y, at_y = kept(Y, bad_y)
    want = gradients(function, good_x, good_y)
    got = gradients(function, X, Y)
    for ours, theirs, place in zip(got, want, (at_x, at_x, at_y, at_y), strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours[place], theirs, rtol=1e-4, atol=1e-5 * scale)
