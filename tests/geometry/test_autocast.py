"""No product of all of geometry is reduced in precision by autocast or by what the process allows for float32."""

from __future__ import annotations

import pytest
import torch

from lapha import PoincareBall, geometry
from lapha.geometry import PolarPoints

X = PolarPoints.from_tangent(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) / 4)
Y = PolarPoints.from_tangent(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)) / 4)
W = torch.randn(6, 8, generator=torch.Generator().manual_seed(2)) / 4
BALL = PoincareBall(1.0)
P, Q = X.to_ball(), Y.to_ball()

CALLS = {
    "dist": lambda: geometry.dist(X, Y),
    "dist0": lambda: geometry.dist0(X),
    "pairwise_dist": lambda: geometry.pairwise_dist(X, Y),
    "mobius_add": lambda: geometry.mobius_add(X, Y),
    "expmap": lambda: geometry.expmap(X, W),
    "logmap": lambda: geometry.logmap(X, Y),
    "geodesic": lambda: geometry.geodesic(X, Y, 0.3),
    "parallel_transport": lambda: geometry.parallel_transport(X, Y, W),
    "busemann": lambda: geometry.busemann(X, Y.direction),
    "weighted_midpoint": lambda: geometry.weighted_midpoint(X),
    "frechet_mean": lambda: geometry.frechet_mean(X),
    "to_frame": lambda: geometry.to_frame(X, W),
    "to_hyperboloid": lambda: X.to_hyperboloid(),
    "ball.dist": lambda: BALL.dist(P, Q),
    "ball.pairwise_dist": lambda: BALL.pairwise_dist(P, Q),
    "ball.mobius_matvec": lambda: BALL.mobius_matvec(torch.eye(8) * 0.7, P),
    "ball.expmap": lambda: BALL.expmap(P, W),
    "ball.transp": lambda: BALL.transp(P, Q, W),
    "ball.weighted_midpoint": lambda: BALL.weighted_midpoint(P),
    "ball.gyration": lambda: BALL.gyration(P, Q, W),
    "ball.dist2plane": lambda: BALL.dist2plane(P, Q, W),
}


def numbers(result: torch.Tensor | PolarPoints) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else [result.direction, result.radius]


@pytest.mark.parametrize("name", CALLS)
def test_autocast_changes_nothing(name: str) -> None:
    want = numbers(CALLS[name]())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = numbers(CALLS[name]())
    finally:
        torch.set_float32_matmul_precision(before)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_the_test_would_notice() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not torch.equal(W @ W.T, torch.einsum("id,jd->ij", W.double(), W.double()).float())
