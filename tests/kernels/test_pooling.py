"""Pooling, torch backend, against plain float64 means."""

from __future__ import annotations

import pytest
import torch

from lapha.geometry import PolarPoints
from lapha.kernels import PooledLatents, pool_latents


def expected(
    hidden: torch.Tensor,
    mask: torch.Tensor,
    root: torch.Tensor,
    before: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, PolarPoints]:
    """Sum, count and latents in float64."""
    total = torch.stack([h.double()[m].sum(0) for h, m in zip(hidden, mask, strict=True)])
    count = mask.sum(1)
    if before is not None:
        total, count = total + before[0], count + before[1]
    tangent = (total / count[:, None] - root) / hidden.shape[2] ** 0.5
    return total, count, PolarPoints.from_tangent(tangent)


def check_pooled(got: PooledLatents, want: tuple[torch.Tensor, torch.Tensor, PolarPoints], tolerance: float) -> None:
    total, count, points = want
    assert torch.equal(got.count, count)
    assert (got.sum - total).abs().max() < tolerance * total.abs().max()
    assert (got.mean - total / count[:, None]).abs().max() < tolerance
    assert got.points is not None
    assert (got.points.radius - points.radius).abs().max() < tolerance
    assert (got.points.direction - points.direction).abs().max() < tolerance


def tokens(dtype: torch.dtype, batch: int = 3, length: int = 37, size: int = 50) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch, length, size, generator=generator).to(dtype)
    mask = torch.rand(batch, length, generator=generator) > 0.4
    return hidden, mask, torch.randn(size, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_padded(dtype: torch.dtype) -> None:
    hidden, mask, root = tokens(dtype)
    got = pool_latents(hidden, mask, root=root)
    assert got.sum.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    check_pooled(got, expected(hidden, mask, root), 1e-6)
    check_pooled(pool_latents(hidden, mask.long(), root=root), expected(hidden, mask, root), 1e-6)


def test_without_a_mask_every_token_counts() -> None:
    hidden, mask, root = tokens(torch.float32)
    check_pooled(pool_latents(hidden, root=root), expected(hidden, torch.ones_like(mask), root), 1e-6)
    assert pool_latents(hidden).points is None


def test_padding_may_hold_anything() -> None:
    hidden, mask, root = tokens(torch.float32)
    broken = hidden.masked_fill(~mask[:, :, None], torch.nan)
    assert torch.equal(pool_latents(broken, mask, root=root).mean, pool_latents(hidden, mask, root=root).mean)


def test_chunks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    from lapha.kernels import pooling_torch

    monkeypatch.setattr(pooling_torch, "_ELEMENTS", 7 * 3 * 50)
    test_padded(torch.bfloat16)
    test_packed()


def test_packed() -> None:
    hidden, _, root = tokens(torch.bfloat16, batch=1, length=60)
    starts = torch.tensor([0, 7, 8, 50], dtype=torch.int32)
    got = pool_latents(hidden[0], cu_seqlens=starts, root=root)
    for i, (first, last) in enumerate([(0, 7), (7, 8), (8, 50)]):
        part = hidden[:, first:last]
        alone = pool_latents(part, root=root)
        assert (got.mean[i] - alone.mean[0]).abs().max() < 1e-6
        assert got.count[i] == last - first
    assert got.points is not None
    assert got.points.shape == (3,)


def test_incremental_is_whole() -> None:
    """A child on top of its parent's sum is the child computed from its first token."""
    hidden, mask, root = tokens(torch.float32)
    parent = pool_latents(hidden[:, :20], mask[:, :20])
    child = pool_latents(hidden[:, 20:], mask[:, 20:], root=root, running_sum=parent.sum, running_count=parent.count)
    check_pooled(child, expected(hidden, mask, root), 1e-6)


def test_a_root_for_each_sequence() -> None:
    hidden, mask, root = tokens(torch.float32)
    roots = torch.stack([root, -root, 0 * root])
    got = pool_latents(hidden, mask, root=roots)
    for i in range(3):
        alone = pool_latents(hidden[i : i + 1], mask[i : i + 1], root=roots[i])
        assert torch.allclose(got.points.direction[i], alone.points.direction[0], atol=1e-6)


def test_no_token_is_the_origin() -> None:
    hidden, mask, root = tokens(torch.float32)
    mask[1] = False
    got = pool_latents(hidden, mask, root=root)
    assert got.count[1] == 0
    assert (got.mean[1] == 0).all()
    assert got.points.radius[1] == 0
    assert got.points.direction[1].tolist() == [1.0] + [0.0] * 49


def test_the_root_itself_is_the_origin() -> None:
    hidden = torch.ones(2, 4, 6)
    got = pool_latents(hidden, root=torch.ones(6))
    assert (got.points.radius == 0).all()


@pytest.mark.parametrize("packed", [False, True])
def test_gradcheck(packed: bool) -> None:
    hidden, mask, root = tokens(torch.float64, batch=2, length=5, size=4)
    running = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    counts = torch.tensor([3, 1])

    def pooled(hidden: torch.Tensor, root: torch.Tensor, running: torch.Tensor) -> tuple[torch.Tensor, ...]:
        form = {"cu_seqlens": torch.tensor([1, 4, 9])} if packed else {"mask": mask}
        value = hidden.reshape(10, 4) if packed else hidden
        got = pool_latents(value, root=root, running_sum=running, running_count=counts, **form)
        return got.sum, got.mean, got.points.direction, got.points.radius

    inputs = tuple(z.double().requires_grad_() for z in (hidden, root, running))
    assert torch.autograd.gradcheck(pooled, inputs)


def test_compiles_without_a_graph_break() -> None:
    hidden, mask, root = tokens(torch.float32)
    hidden.requires_grad_()

    def loss(hidden: torch.Tensor) -> torch.Tensor:
        got = pool_latents(hidden, mask, root=root)
        return got.points.radius.sum() + got.points.direction[:, 0].sum()

    torch.compile(loss, fullgraph=True, backend="aot_eager")(hidden).backward()
    compiled, hidden.grad = hidden.grad, None
    loss(hidden).backward()
    assert torch.equal(compiled, hidden.grad)


def test_empty_batch() -> None:
    got = pool_latents(torch.empty(0, 5, 8), root=torch.zeros(8))
    assert got.sum.shape == (0, 8)
    assert got.points.shape == (0,)


def test_bad_arguments_are_named() -> None:
    hidden, mask, root = tokens(torch.float32)
    starts = torch.tensor([0, 5])
    cases = [
        ("hidden: expected 3 dimension", lambda: pool_latents(hidden[0])),
        ("hidden: expected 2 dimension", lambda: pool_latents(hidden, cu_seqlens=starts)),
        ("hidden: expected a floating", lambda: pool_latents(hidden.long())),
        ("mask: expected shape", lambda: pool_latents(hidden, mask[:, :5])),
        ("mask: expected bool or integers", lambda: pool_latents(hidden, mask.float())),
        ("mask: expected None with cu_seqlens", lambda: pool_latents(hidden[0], mask, cu_seqlens=starts)),
        ("cu_seqlens: expected int32 or int64", lambda: pool_latents(hidden[0], cu_seqlens=starts.float())),
        (
            "cu_seqlens: expected numbers that do not decrease",
            lambda: pool_latents(hidden[0], cu_seqlens=torch.tensor([0, 9, 4]), validate=True),
        ),
        ("root: expected shape", lambda: pool_latents(hidden, root=root[:4])),
        ("running_sum: expected given together", lambda: pool_latents(hidden, running_sum=hidden[:, 0])),
        (
            "running_count: expected dtype",
            lambda: pool_latents(hidden, running_sum=hidden[:, 0], running_count=torch.ones(3)),
        ),
        ("hidden: expected finite", lambda: pool_latents(hidden * torch.nan, validate=True)),
        ("backend: expected one of", lambda: pool_latents(hidden, backend="cuda")),
    ]
    for named, call in cases:
        with pytest.raises(ValueError, match=named):
            call()
