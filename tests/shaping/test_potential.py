import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shaping_golden import LINE_TREE

from lapha.geometry import PolarPoints
from lapha.shaping import potential, success_rate

TREES = settings(max_examples=60, deadline=None)


def on_a_line(signed_radius: list[float], dtype=torch.float64) -> PolarPoints:
    tangent = torch.zeros(len(signed_radius), 3, dtype=dtype)
    tangent[:, 0] = torch.tensor(signed_radius, dtype=dtype)
    return PolarPoints.from_tangent(tangent)


def random_tangents(seed: int, n: int, dim: int, scale: float, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tangent = torch.randn(n, dim, generator=generator, dtype=dtype)
    tangent = scale * tangent / tangent.norm(dim=1).mean()
    tangent[0] = 0  # the root is the origin
    return tangent


def exact_distance(x: torch.Tensor, y: torch.Tensor, curvature: float) -> mpmath.mpf:
    """By the ball's textbook formula in 400 digits, from tangent vectors: another road than the library's."""
    with mpmath.workdps(400):
        root_c = mpmath.sqrt(curvature)

        def ball(v: torch.Tensor) -> list:
            vector = [mpmath.mpf(float(a)) for a in v]
            norm = mpmath.sqrt(sum(a * a for a in vector))
            return [a * mpmath.tanh(root_c * norm) / (root_c * norm) for a in vector] if norm else vector

        p, q = ball(x), ball(y)
        gap = sum((a - b) ** 2 for a, b in zip(p, q))
        free = (1 - curvature * sum(a * a for a in p)) * (1 - curvature * sum(b * b for b in q))
        return mpmath.acosh(1 + 2 * curvature * gap / free) / root_c


def test_by_hand():
    V = potential(on_a_line(LINE_TREE["signed_radius"]), torch.tensor(LINE_TREE["goal"]))
    torch.testing.assert_close(V, torch.tensor(LINE_TREE["V"], dtype=torch.float64), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("curvature", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("scale", [0.01, 0.5, 8.0])
def test_against_four_hundred_digits(scale, curvature):
    tangent = random_tangents(3, 9, 5, scale)
    goal = torch.zeros(9, dtype=torch.bool)
    goal[[4, 7]] = True
    V = potential(PolarPoints.from_tangent(tangent, curvature=curvature), goal)
    for node in range(9):
        d_root = exact_distance(tangent[node], tangent[0], curvature)
        d_goal = min(exact_distance(tangent[node], tangent[g], curvature) for g in (4, 7))
        assert float(V[node]) == pytest.approx(float(d_root / (d_root + d_goal)), rel=1e-6, abs=1e-12)


@TREES
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 40),
    dim=st.integers(2, 64),
    log_scale=st.floats(-4, 1.6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    goals=st.integers(1, 5),
)
def test_range_root_and_goals(seed, n, dim, log_scale, dtype, goals):
    tangent = random_tangents(seed, n, dim, 10**log_scale, dtype)
    goal = torch.zeros(n, dtype=torch.bool)
    goal[torch.randperm(n - 1, generator=torch.Generator().manual_seed(seed))[:goals] + 1] = True
    V = potential(PolarPoints.from_tangent(tangent), goal)
    assert bool(((V >= 0) & (V <= 1)).all())
    assert float(V[0]) == 0.0
    assert bool((V[goal] == 1.0).all())  # exactly, in either precision


@TREES
@given(seed=st.integers(0, 10_000), n=st.integers(2, 20), dim=st.integers(2, 16), scale=st.floats(0.05, 5))
def test_does_not_change_under_rotation_or_relabelling(seed, n, dim, scale):
    tangent = random_tangents(seed, n, dim, scale)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    order = torch.randperm(n, generator=generator)
    goal = torch.zeros(n, dtype=torch.bool)
    goal[n - 1] = True
    V = potential(PolarPoints.from_tangent(tangent), goal)
    turned = potential(PolarPoints.from_tangent(tangent @ rotation), goal)
    shuffled = potential(PolarPoints.from_tangent(tangent[order]), goal[order])
    torch.testing.assert_close(turned, V, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shuffled, V[order], rtol=1e-12, atol=1e-12)


def test_more_goals_never_lower_the_potential():
    points = PolarPoints.from_tangent(random_tangents(0, 30, 8, 1.0))
    few, more = torch.zeros(30, dtype=torch.bool), torch.zeros(30, dtype=torch.bool)
    few[5] = more[5] = more[11] = True
    assert bool((potential(points, more) >= potential(points, few)).all())


def test_goals_given_as_points_include_latents_outside_the_tree():
    points = on_a_line([0.0, 0.25, -0.25])
    V = potential(points, on_a_line([0.5]))
    torch.testing.assert_close(V, torch.tensor([0.0, 0.5, 0.25], dtype=torch.float64), rtol=1e-7, atol=1e-7)


def test_a_near_duplicate_of_a_goal_stays_below_one():
    direction = torch.zeros(2, 1536)
    direction[:, 0] = 1.0
    direction[1, 1] = 1e-4
    points = PolarPoints.from_tangent(torch.cat([torch.zeros(1, 1536), direction]))
    V = potential(points, torch.tensor([False, True, False]))
    expected = 2 / (2 + 1e-4 * torch.sinh(torch.tensor(2.0)))  # locally, d = sinh(2a)·angle
    assert float(V[1]) == 1.0
    assert float(1 - V[2]) == pytest.approx(float(1 - expected), rel=2e-3)


def test_no_goal_gives_zeros_or_raises_where_one_is_needed():
    points = on_a_line([0.0, 0.25, 0.5])
    none = torch.zeros(3, dtype=torch.bool)
    assert potential(points, none).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="goal: expected at least one goal"):
        potential(points, none, require_goal=True)


def test_gradient_is_finite_at_root_and_goal():
    tangent = random_tangents(1, 6, 4, 0.7).requires_grad_()
    goal = torch.tensor([False, False, True, False, False, False])
    potential(PolarPoints.from_tangent(tangent), goal).sum().backward()
    assert bool(torch.isfinite(tangent.grad).all())


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (torch.zeros(2, dtype=torch.bool), r"goal: expected shape \(3,\), got shape \(2,\)"),
        (torch.zeros(3), "goal: expected dtype torch.bool, got torch.float32"),
        ([True, False, False], "goal: expected a torch.Tensor, got list"),
        (PolarPoints.from_tangent(torch.ones(1, 2)), "goal: expected dimension 3, got 2"),
        (PolarPoints.from_tangent(torch.ones(1, 3), curvature=2.0), "goal: expected curvature 1.0, got 2.0"),
    ],
)
def test_bad_goals_are_named(goal, message):
    with pytest.raises(ValueError, match=message):
        potential(on_a_line([0.0, 0.1, 0.2]), goal)


def test_nan_latents_are_named():
    tangent = torch.ones(3, 4)
    tangent[2, 1] = torch.nan
    points = PolarPoints.from_tangent(tangent)
    with pytest.raises(ValueError, match="points: expected finite latents, got NaN or Inf, the first at index 2"):
        potential(points, torch.tensor([True, False, False]))
    with pytest.raises(ValueError, match="points: expected PolarPoints, got Tensor"):
        potential(tangent, torch.tensor([True, False, False]))


def test_success_rate_by_hand():
    rate = success_rate(
        torch.tensor(LINE_TREE["parent"]), torch.tensor(LINE_TREE["terminal"]), torch.tensor(LINE_TREE["goal"])
    )
    assert rate.tolist() == LINE_TREE["success_rate"]


@TREES
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_success_rate_counts_leaves_below(seed, n):
    generator = torch.Generator().manual_seed(seed)
    parent = torch.tensor([-1] + [int(torch.randint(0, i, (), generator=generator)) for i in range(1, n)])
    terminal = torch.rand(n, generator=generator) < 0.4
    correct = terminal & (torch.rand(n, generator=generator) < 0.5)
    rate = success_rate(parent, terminal, correct)
    for node in range(n):
        below = [m for m in range(n) if node in _ancestors(m, parent) and terminal[m]]
        if below:
            assert float(rate[node]) == pytest.approx(sum(bool(correct[m]) for m in below) / len(below))
        else:
            assert bool(torch.isnan(rate[node]))


def _ancestors(node: int, parent: torch.Tensor) -> set[int]:
    found = set()
    while node >= 0:
        found.add(node)
        node = int(parent[node])
    return found


def test_success_rate_refuses_a_correct_node_that_is_not_terminal():
    with pytest.raises(ValueError, match="correct: expected terminal nodes only"):
        success_rate(torch.tensor([-1, 0]), torch.tensor([False, False]), torch.tensor([False, True]))
