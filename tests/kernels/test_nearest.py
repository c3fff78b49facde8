"""The nearest latent and the k nearest, torch backend, against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_oracle import exact_distances, family, largest_error

from lapha.geometry import PolarPoints
from lapha.kernels import knn, nearest
from lapha.kernels.nearest_torch import row_minimum

TOLERANCE = 2e-6


def check_nearest(X: PolarPoints, Y: PolarPoints, tolerance: float = TOLERANCE) -> None:
    """The distance is the least, and the index leads to it."""
    distance, index = nearest(X, Y)
    exact = exact_distances(X, Y)
    least = exact.min(dim=1).values
    assert index.dtype == torch.int64
    assert largest_error(distance, least) < tolerance
    assert largest_error(exact.gather(1, index[:, None])[:, 0], least) < tolerance


@pytest.mark.parametrize("cosine", [0.0, 0.9, 0.99999])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 9.0, 50.0])
def test_nearest_over_radii_and_cosines(cosine: float, radius: float) -> None:
    check_nearest(family(80, 200, cosine, radius, seed=1), family(64, 200, cosine, radius, seed=2))


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(0, 9),
    m=st.integers(1, 150),
    dim=st.sampled_from([1, 2, 8, 65]),
    cosine=st.floats(-1, 1),
    radius=st.floats(1e-3, 50),
    curvature=st.sampled_from([0.25, 1.0, 3.0]),
    seed=st.integers(0, 10_000),
)
def test_nearest_of_any_latents(
    n: int, m: int, dim: int, cosine: float, radius: float, curvature: float, seed: int
) -> None:
    X = family(n, dim, cosine, radius, seed, curvature=curvature)
    Y = family(m, dim, cosine, radius, seed + 1, curvature=curvature)
    check_nearest(X, Y, tolerance=1e-5)


def test_radii_of_all_sizes_among_the_candidates() -> None:
    """exp(2b) spans 86 powers of ten: the order must hold all the same."""
    Y = PolarPoints.cat([family(8, 32, 0.5, radius, seed=1) for radius in (1e-3, 0.3, 2.0, 12.0, 30.0, 50.0)])
    X = PolarPoints.cat([Y, family(20, 32, 0.5, 40.0, seed=2), PolarPoints.origin((1,), 32)])
    check_nearest(X, Y)


def test_a_member_finds_itself() -> None:
    Y = family(128, 96, 0.95, 3.0, seed=1)
    distance, index = nearest(Y, Y)
    assert (distance == 0).all()
    assert torch.equal(index, torch.arange(128))


def test_near_ties_between_near_duplicates() -> None:
    """Candidates a hundred times closer to each other than the product can tell apart."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(64, generator=generator)
    Y = PolarPoints.from_tangent((centre + 1e-5 * torch.randn(40, 64, generator=generator)) / 8)
    X = PolarPoints.from_tangent((centre + 1e-5 * torch.randn(30, 64, generator=generator)) / 8)
    far = family(25, 64, 0.0, 1.0, seed=4)
    check_nearest(X, PolarPoints.cat([far, Y]), tolerance=1e-5)


def test_first_of_equals() -> None:
    Y = family(70, 16, 0.4, 1.0, seed=1)
    copies = PolarPoints.cat([Y, Y, Y])
    assert torch.equal(nearest(Y, copies)[1], torch.arange(70))


def test_blocks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    from lapha.kernels import knn_torch, nearest_torch

    for module in (knn_torch, nearest_torch):
        monkeypatch.setattr(module, "_ROWS", 16)
        monkeypatch.setattr(module, "_COLUMNS", 24)
    monkeypatch.setattr(nearest_torch, "_SMALL", 0)
    for radius in (1.0, 50.0):
        X, Y = family(50, 32, 0.8, radius, seed=1), family(61, 32, 0.8, radius, seed=2)
        check_nearest(X, Y)
    test_knn_is_sorted_and_complete(7)


@pytest.mark.parametrize("shape", [(5, 64), (3, 128), (4, 37), (1, 640), (0, 64)])
def test_row_minimum(shape: tuple[int, int]) -> None:
    values = torch.randint(0, 20, shape, generator=torch.Generator().manual_seed(0)).float()
    least, index = row_minimum(values)
    assert torch.equal(least, values.amin(1))
    assert index.tolist() == [row.index(min(row)) for row in values.tolist()]


@pytest.mark.parametrize("k", [1, 7, 61])
def test_knn_is_sorted_and_complete(k: int) -> None:
    X, Y = family(20, 32, 0.8, 1.0, seed=1), family(61, 32, 0.8, 1.0, seed=2)
    distance, index = knn(X, Y, k)
    exact = exact_distances(X, Y)
    assert distance.shape == index.shape == (20, k)
    assert (distance.diff(dim=1) >= 0).all()
    assert largest_error(distance, exact.topk(k, dim=1, largest=False).values) < TOLERANCE
    assert largest_error(exact.gather(1, index), distance.double()) < TOLERANCE
    assert all(len(set(row)) == k for row in index.tolist())


def test_knn_puts_equals_in_index_order() -> None:
    Y = family(30, 16, 0.4, 1.0, seed=1)
    _, index = knn(Y, PolarPoints.cat([Y, Y, Y]), 3)
    assert torch.equal(index, torch.arange(30)[:, None] + torch.tensor([0, 30, 60]))


def test_knn_of_nothing() -> None:
    none = family(0, 8, 0.4, 1.0, seed=1)
    distance, index = knn(none, family(5, 8, 0.4, 1.0, seed=1), 2)
    assert distance.shape == index.shape == (0, 2)


def test_distances_carry_gradients_and_indices_do_not() -> None:
    X, Y = family(6, 8, 0.4, 1.0, seed=1, dtype=torch.float64), family(9, 8, 0.4, 1.0, seed=2, dtype=torch.float64)

    def distances(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = PolarPoints(X.direction, a), PolarPoints(Y.direction, b)
        return nearest(left, right)[0], knn(left, right, 3)[0]

    radii = X.radius.clone().requires_grad_(), Y.radius.clone().requires_grad_()
    assert torch.autograd.gradcheck(distances, radii)


def test_compiles_without_a_graph_break() -> None:
    X, Y = family(6, 8, 0.4, 1.0, seed=1), family(9, 8, 0.4, 1.0, seed=2)
    compiled = torch.compile(
        lambda *z: nearest(PolarPoints(*z[:2]), PolarPoints(*z[2:])), fullgraph=True, backend="eager"
    )
    got = compiled(X.direction, X.radius, Y.direction, Y.radius)
    assert all(torch.equal(a, b) for a, b in zip(got, nearest(X, Y), strict=True))


def test_bad_arguments_are_named() -> None:
    X, none = family(5, 8, 0.4, 1.0, seed=1), family(0, 8, 0.4, 1.0, seed=1)
    with pytest.raises(ValueError, match="Y: expected at least one latent"):
        nearest(X, none)
    for k in (0, 6, 2.0, True):
        with pytest.raises(ValueError, match=r"k: expected an integer in \[1, 5\]"):
            knn(X, X, k)  # type: ignore[arg-type]
