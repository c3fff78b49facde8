"""h(s), whole and incremental, and the root-centred latent."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import dist0
from lapha.latent import RunningMean, latent_points, pool_hidden, tangent


def test_pool_hidden_is_the_mean_over_counted_tokens_in_float32() -> None:
    hidden = torch.randn(3, 7, 5, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 3 + [0] * 4, [0, 1, 0, 1, 0, 0, 1]])
    pooled = pool_hidden(hidden, mask)
    assert pooled.dtype == torch.float32
    for row in range(3):
        expected = hidden[row][mask[row].bool()].double().mean(0)
        torch.testing.assert_close(pooled[row].double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(pool_hidden(hidden[0]), pooled[0])


def test_padding_may_hold_nan_without_reaching_value_or_gradient() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [float("nan")]]], requires_grad=True)
    pooled = pool_hidden(hidden, torch.tensor([[True, True, False]]))
    assert pooled.item() == 2.0
    pooled.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.flatten().tolist() == [0.5, 0.5, 0.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**31))
def test_running_mean_over_any_split_equals_the_whole(lengths: list[int], seed: int) -> None:
    hidden = torch.randn(sum(lengths), 4, generator=torch.Generator().manual_seed(seed))
    running = RunningMean.empty(4)
    for part in hidden.split(lengths):
        running = running.extend(part)
    assert int(running.count) == len(hidden)
    torch.testing.assert_close(running.mean.double(), hidden.double().mean(0), rtol=1e-5, atol=1e-6)


def test_one_parent_extends_to_a_batch_of_siblings_and_stays_as_it_was() -> None:
    parent = RunningMean.empty(4).extend(torch.ones(5, 4))
    siblings = torch.stack([torch.full((3, 4), 2.0), torch.full((3, 4), 6.0)])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    children = parent.extend(siblings, mask)
    assert children.count.tolist() == [8, 6]
    assert children.mean[:, 0].tolist() == pytest.approx([11 / 8, 11 / 6])
    assert parent.mean.tolist() == [1.0] * 4


def test_root_is_the_origin_and_distance_is_twice_the_tangent_norm() -> None:
    h = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    points = latent_points(h, h[0], curvature=2.0)
    assert points.curvature == 2.0
    assert points.radius[0] == 0
    v = (h.double() - h[0].double()) / 4.0
    torch.testing.assert_close(dist0(points).double(), 2 * v.norm(dim=-1), rtol=1e-5, atol=1e-6)


def test_tangent_of_half_precision_states_is_computed_in_float32() -> None:
    h, root = torch.tensor([[256.0, 1.0]]).bfloat16(), torch.tensor([255.0, 1.0])
    assert tangent(h, root).dtype == torch.float32
    torch.testing.assert_close(tangent(h, root), torch.tensor([[1 / 2**0.5, 0.0]]))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: pool_hidden(torch.ones(2, 3, 4, dtype=torch.int64)), "hidden"),
        (lambda: pool_hidden(torch.ones(4)), "hidden"),
        (lambda: pool_hidden(torch.ones(2, 3, 4), torch.ones(2, 4)), "mask"),
        (lambda: pool_hidden(torch.ones(2, 3, 4), torch.tensor([[1, 1, 1], [0, 0, 0]])), "mask"),
        (lambda: pool_hidden(torch.ones(0, 4)), "mask"),
        (lambda: RunningMean.empty(0), "hidden_size"),
        (lambda: RunningMean.empty(4).extend(torch.ones(3, 5)), "hidden"),
        (lambda: RunningMean.empty(4).mean, "count"),
        (lambda: tangent(torch.ones(2, 3), torch.ones(4)), "h_root"),
        (lambda: tangent(torch.ones(2, 3), torch.ones(3, dtype=torch.int32)), "h_root"),
        (lambda: latent_points(torch.ones(2, 3), torch.ones(3), curvature=0.0), "curvature"),
    ],
)
def test_bad_input_is_named(call, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        call()
