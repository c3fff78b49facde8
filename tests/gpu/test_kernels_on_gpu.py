"""The Triton kernels on a CUDA device: accuracy at real sizes, bounded memory, gradients, compilation."""

from __future__ import annotations

import pytest
import torch

from lapha.geometry import PolarPoints
from lapha.geometry import pairwise_dist as exact_pairwise
from lapha.kernels import knn, last_choice, nearest, pairwise_dist, pool_latents

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

# For pairs farther apart than 1e-4.
TOLERANCE = {"ieee": 2e-6, "tf32x3": 2e-6, "bf16": 5e-3}


def latents(count: int, dim: int, cosine: float, radius: float, seed: int) -> PolarPoints:
    """Directions with about this cosine, among them duplicates, near-duplicates and the origin."""
    generator = torch.Generator("cuda").manual_seed(seed)
    normal = lambda rows: torch.randn(rows, dim, generator=generator, device="cuda") / dim**0.5  # noqa: E731
    direction = cosine**0.5 * torch.nn.functional.normalize(normal(1), dim=1) + (1 - cosine) ** 0.5 * normal(count)
    direction[count // 2 : count // 2 + 3] = direction[:3]
    direction[count // 2 + 3 : count // 2 + 6] = direction[:3] + 1e-5 * normal(3)
    norms = radius * (0.5 + 0.5 * torch.rand(count, generator=generator, device="cuda"))
    norms[count // 2 : count // 2 + 6] = norms[:3].repeat(2)
    norms[-1] = 0
    return PolarPoints(torch.nn.functional.normalize(direction, dim=1), norms)


def exact(X: PolarPoints, Y: PolarPoints) -> torch.Tensor:
    return exact_pairwise(*(PolarPoints(p.direction.double(), p.radius.double(), p.curvature) for p in (X, Y)))


def largest_error(got: torch.Tensor, want: torch.Tensor) -> float:
    assert not torch.isnan(got).any()
    assert (got[want == 0] == 0).all()
    return float(((got.double() - want).abs() / torch.where(want > 0, want, 1)).max())


@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "bf16"])
@pytest.mark.parametrize("cosine", [0.0, 0.7, 0.99])
@pytest.mark.parametrize("dim", [64, 576, 1536, 1541])
def test_pairwise_accuracy(precision: str, cosine: float, dim: int) -> None:
    for radius in (1e-3, 1.0, 6.0, 50.0):
        X, Y = latents(777, dim, cosine, radius, 1), latents(519, dim, cosine, radius, 1)
        got = pairwise_dist(X, Y, backend="triton", precision=precision)
        want = exact(X, Y)
        near = want < 1e-4
        assert last_choice().backend == "triton"
        assert largest_error(got[~near], want[~near]) < TOLERANCE[precision]
        assert largest_error(got[near], want[near]) < 1e-5 if near.any() else True


def test_clusters() -> None:
    """Tight groups in a wide set: no one centre makes all products good, so many pairs are refined."""
    generator = torch.Generator("cuda").manual_seed(0)
    centres = torch.randn(32, 1, 576, generator=generator, device="cuda")
    v = (centres + 0.05 * torch.randn(32, 16, 576, generator=generator, device="cuda")).reshape(512, 576) / 24
    X = PolarPoints.from_tangent(v)
    for precision in ("ieee", "tf32x3"):
        assert largest_error(pairwise_dist(X, backend="triton", precision=precision), exact(X, X)) < 2e-6


def test_ieee_is_ieee_whatever_the_process_allows() -> None:
    X = latents(300, 1536, 0.0, 1.0, 1)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            for backend in ("torch", "triton"):
                assert largest_error(pairwise_dist(X, backend=backend), exact(X, X)) < 2e-6
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "bf16"])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 50.0])
def test_nearest(precision: str, radius: float) -> None:
    X, Y = latents(5000, 576, 0.5, radius, 1), latents(1000, 576, 0.5, radius, 2)
    Y = PolarPoints.cat([Y, X[:5]])
    distance, index = nearest(X, Y, backend="triton", precision=precision)
    want = exact(X, Y)
    least = want.min(dim=1).values
    assert largest_error(distance, least) < TOLERANCE[precision]
    assert largest_error(want.gather(1, index[:, None])[:, 0], least) < TOLERANCE[precision]


def test_nearest_holds_no_matrix_of_pairs() -> None:
    X, Y = latents(65536, 256, 0.5, 1.0, 1), latents(4096, 256, 0.5, 1.0, 2)
    nearest(X, Y, backend="triton", precision="tf32x3")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    nearest(X, Y, backend="triton", precision="tf32x3")
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 4 * 65536 * 4096 / 4  # a quarter of the matrix; most is two prepared copies of some rows


def test_knn() -> None:
    X, Y = latents(700, 576, 0.5, 1.0, 1), latents(3000, 576, 0.5, 1.0, 2)
    distance, index = knn(X, Y, 9, backend="triton", precision="tf32x3")
    want = exact(X, Y)
    assert largest_error(distance, want.topk(9, dim=1, largest=False).values) < 2e-6
    assert largest_error(want.gather(1, index), distance.double()) < 4e-6


def test_gradients_agree_with_the_torch_backend() -> None:
    X = latents(257, 576, 0.5, 1.0, 1)
    gradients = []
    for backend in ("triton", "torch"):
        direction = X.direction.clone().requires_grad_()
        radius = X.radius.clone().requires_grad_()
        pairwise_dist(PolarPoints(direction, radius), backend=backend, precision="ieee").square().sum().backward()
        gradients.append((direction.grad, radius.grad))
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() < 1e-4 * other.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("packed", [False, True])
def test_pooling(dtype: torch.dtype, packed: bool) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(7, 301, 1536, generator=generator, device="cuda").to(dtype)
    root = torch.randn(1536, generator=generator, device="cuda")
    if packed:
        starts = torch.tensor([0, 5, 5, 900, 2107], device="cuda", dtype=torch.int32)
        arguments: dict = {"hidden": hidden.reshape(-1, 1536), "cu_seqlens": starts, "root": root}
    else:
        mask = torch.rand(7, 301, generator=generator, device="cuda") > 0.3
        hidden[~mask] = torch.nan
        arguments = {"hidden": hidden, "mask": mask, "root": root}
    got, want = (pool_latents(**arguments, backend=backend) for backend in ("triton", "torch"))
    assert torch.equal(got.count, want.count)
    assert torch.allclose(got.mean, want.mean, rtol=1e-4, atol=1e-5)
    assert torch.allclose(got.points.radius, want.points.radius, rtol=1e-4)


def test_pooling_makes_no_float32_copy() -> None:
    hidden = torch.randn(16, 2048, 1536, device="cuda", dtype=torch.bfloat16)
    pool_latents(hidden, backend="triton")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pool_latents(hidden, backend="triton")
    assert torch.cuda.max_memory_allocated() - before < hidden.nbytes / 4


def test_compiled_without_a_graph_break() -> None:
    X = latents(100, 64, 0.5, 1.0, 1)
    compiled = torch.compile(lambda u, a: pairwise_dist(PolarPoints(u, a)).sum(), fullgraph=True)
    direction = X.direction.clone().requires_grad_()
    compiled(direction, X.radius).backward()
    expected = X.direction.clone().requires_grad_()
    pairwise_dist(PolarPoints(expected, X.radius)).sum().backward()
    assert torch.allclose(direction.grad, expected.grad, rtol=1e-5, atol=1e-5)


def test_auto_takes_triton() -> None:
    X = latents(40, 64, 0.5, 1.0, 1)
    pairwise_dist(X)
    assert last_choice().backend == "triton"
