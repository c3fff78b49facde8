"""Potentials behind one interface, each against its formula in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints
from lapha.shaping import ShapingConfig, TreeStates, potentials, shape

TREES = settings(max_examples=50, deadline=None, derandomize=True)


@st.composite
def trees(draw):
    """A tree of 3 to 20 states with float64 latents; leaves are right, wrong, not graded or open."""
    size = draw(st.integers(3, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    parent = torch.tensor(
        [-1] + [int(torch.randint(max(0, i - 3), i, (), generator=generator)) for i in range(1, size)]
    )
    leaf = torch.ones(size, dtype=torch.bool)
    leaf[parent[1:]] = False
    kind = torch.randint(0, 5, (size,), generator=generator)
    v = torch.randn(size, 4, generator=generator, dtype=torch.float64) * draw(st.sampled_from([0.1, 0.5, 1.0]))
    v[0] = 0
    terminal = leaf & (kind < 4)
    return TreeStates(PolarPoints.from_tangent(v), parent, terminal, terminal & (kind < 2), terminal & (kind == 3))


def vectors(tree):
    return (tree.points.direction * tree.points.radius[:, None]).tolist()


def marked(mask):
    return mask.nonzero()[:, 0].tolist()


def ball_distance(u, v):
    def ball(w):
        norm = math.hypot(*w)
        return [a * math.tanh(norm) / norm for a in w] if norm else list(w)

    p, q = ball(u), ball(v)
    gap = sum((a - b) ** 2 for a, b in zip(p, q))
    return math.acosh(1 + 2 * gap / ((1 - sum(a * a for a in p)) * (1 - sum(a * a for a in q))))


@TREES
@given(trees())
def test_every_potential_is_in_range_and_right_at_its_ends(tree):
    for name, rule in potentials.POTENTIALS.items():
        V = rule(tree)
        assert V.dtype == torch.float64, name
        assert bool(((V >= 0) & (V <= 1)).all()), name
        if not bool(tree.correct.any()):
            assert not V.any(), name  # no signal
            continue
        assert torch.equal(V[tree.correct], torch.ones_like(V[tree.correct])), name
        if name not in ("success_rate", "mixture", "contrastive"):
            assert V[0] == 0, name


@TREES
@given(trees())
def test_ratios_of_distances(tree):
    v, goals, wrong = vectors(tree), marked(tree.correct), marked(tree.failed)
    if not goals:
        return
    flat, bent = potentials.euclidean(tree), potentials.hyperbolic(tree)
    against, angle = potentials.contrastive(tree), potentials.cosine(tree)
    for n in range(1, len(v)):
        if n in goals:
            continue
        near, far = min(math.dist(v[n], v[g]) for g in goals), math.hypot(*v[n])
        assert float(flat[n]) == pytest.approx(far / (far + near), rel=1e-6)
        near, far = min(ball_distance(v[n], v[g]) for g in goals), ball_distance(v[n], [0.0] * 4)
        assert float(bent[n]) == pytest.approx(far / (far + near), rel=1e-5, abs=1e-9)
        if wrong and n not in wrong:
            fail = min(ball_distance(v[n], v[w]) for w in wrong)
            assert float(against[n]) == pytest.approx(fail / (fail + near), rel=1e-5)
        best = max(sum(a * b for a, b in zip(v[n], v[g])) / (math.hypot(*v[n]) * math.hypot(*v[g])) for g in goals)
        assert float(angle[n]) == pytest.approx(max(0.0, best), abs=1e-9)
    if wrong:
        assert not against[wrong].any()


@TREES
@given(trees())
def test_soft_minimum_lies_between_the_nearest_goal_and_their_mean(tree):
    if not bool(tree.correct.any()):
        return
    hard, cold, warm = (
        potentials.hyperbolic(tree), potentials.soft_min(tree, 1e-6), potentials.soft_min(tree, 1e6)
    )  # fmt: skip
    torch.testing.assert_close(cold, hard, atol=1e-6, rtol=1e-6)
    v, goals = vectors(tree), marked(tree.correct)
    for n in range(1, len(v)):
        if n not in goals:
            far, mean = ball_distance(v[n], [0.0] * 4), sum(ball_distance(v[n], v[g]) for g in goals) / len(goals)
            assert float(warm[n]) == pytest.approx(far / (far + mean), rel=1e-4)


@TREES
@given(trees())
def test_rescaled_uses_the_ball_whatever_the_scale(tree):
    small = TreeStates(
        PolarPoints(tree.points.direction, tree.points.radius * 0.01), tree.parent, tree.terminal, tree.correct, tree.unknown
    )  # fmt: skip
    torch.testing.assert_close(potentials.rescaled(small), potentials.rescaled(tree), atol=1e-9, rtol=1e-7)
    if bool(tree.correct.any()):
        median = float(tree.points.radius[tree.points.radius > 0].median())
        factor = 2.0 / median
        v = [[factor * a for a in w] for w in vectors(tree)]
        goals, got = marked(tree.correct), potentials.rescaled(tree)
        n = max(range(1, len(v)), key=lambda i: 0.0 if i in goals else 1.0)
        if n not in goals and math.hypot(*v[n]) < 6 and all(math.hypot(*v[g]) < 6 for g in goals):
            far, near = ball_distance(v[n], [0.0] * 4), min(ball_distance(v[n], v[g]) for g in goals)
            assert float(got[n]) == pytest.approx(far / (far + near), rel=1e-4)


@TREES
@given(trees())
def test_success_rate_and_mixture_by_counting(tree):
    parent = tree.parent.tolist()
    graded = marked(tree.terminal & ~tree.unknown)

    def below(node):
        found = []
        for leaf in graded:
            n = leaf
            while n >= 0:
                if n == node:
                    found.append(float(tree.correct[leaf]))
                n = parent[n]
        return found

    rate, mixed = potentials.success_rate(tree), potentials.mixture(tree, prior_leaves=3.0)
    if not bool(tree.correct.any()):
        return
    g = potentials.hyperbolic(tree).tolist()
    inner = [n for n in range(1, len(parent)) if not tree.terminal[n]]
    center = sum(g[n] for n in inner) / len(inner) if inner else sum(g) / len(g)
    top = sum(below(0)) / len(below(0))
    for node in range(len(parent)):
        above = node
        while not below(above):
            above = parent[above]
        assert float(rate[node]) == pytest.approx(sum(below(above)) / len(below(above)))
        prior = min(max(top + (g[node] - center) * min(top, 1 - top), 0.0), 1.0)
        leaves = below(node)
        wanted = (sum(leaves) + 3.0 * prior) / (len(leaves) + 3.0)
        if node == 0:
            wanted = top
        elif node in graded:
            wanted = float(tree.correct[node])
        assert float(mixed[node]) == pytest.approx(wanted, abs=1e-9)


@TREES
@given(trees())
def test_depth_centered_does_not_see_what_a_whole_depth_shares(tree):
    """A shift of all latents of one depth, the goals of other depths apart, changes nothing."""
    if not bool(tree.correct.any()):
        return
    depth = torch.tensor([len(path) for path in (ancestors(tree.parent, n) for n in range(len(tree.parent)))])
    shift = torch.randn(int(depth.max()) + 1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shift[0] = 0
    v = torch.tensor(vectors(tree), dtype=torch.float64) + shift[depth]
    moved = TreeStates(PolarPoints.from_tangent(v), tree.parent, tree.terminal, tree.correct, tree.unknown)
    torch.testing.assert_close(potentials.depth_centered(moved), potentials.depth_centered(tree), atol=1e-7, rtol=1e-7)


def ancestors(parent, node):
    found = []
    while int(parent[node]) >= 0:
        node = int(parent[node])
        found.append(node)
    return found


def line(radii, parent, right=(), wrong=()):
    tangent = torch.zeros(len(radii), 2, dtype=torch.float64)
    tangent[:, 0] = torch.tensor(radii, dtype=torch.float64)
    marks = [torch.tensor([n in chosen for n in range(len(radii))]) for chosen in ((*right, *wrong), right)]
    return TreeStates(
        PolarPoints.from_tangent(tangent), torch.tensor(parent), *marks, torch.zeros(len(radii), dtype=torch.bool)
    )


def test_depth_centered_by_hand():
    # depth 1: 1 and 3 (mean 2), depth 2: 4 (the goal) alone, so its u is 0; u of depth 1 is −1 and +1: equally far
    tree = line([0, 1, 3, 4], [-1, 0, 0, 1], right=[3])
    assert potentials.depth_centered(tree).tolist() == pytest.approx([0, 0.5, 0.5, 1])
    # goals at depth 2: 4 and the wrong one at 2, mean 3: u of the goal +1, so node 2 (u = +1) has arrived
    tree = line([0, 1, 3, 4, 2], [-1, 0, 0, 1, 1], right=[3], wrong=[4])
    assert potentials.depth_centered(tree).tolist() == pytest.approx([0, 1 / 3, 1, 1, 1 / 3], abs=1e-7)


def test_goals_from_elsewhere_score_a_tree_without_its_own():
    tree = line([0, 0.25, -0.25], [-1, 0, 0], wrong=[2])
    assert not potentials.hyperbolic(tree).any()
    bank = PolarPoints.from_tangent(torch.tensor([[0.5, 0.0]], dtype=torch.float64))
    assert potentials.with_goals(bank)(tree).tolist() == pytest.approx([0, 0.5, 0.25], abs=1e-7)
    rescaled = potentials.with_goals(bank, potentials.rescaled)(tree)  # the bank's latents are stretched along
    assert float(rescaled[1]) == pytest.approx(0.5, abs=1e-6)
    config = ShapingConfig(potential=potentials.with_goals(bank))
    shaped = shape(tree.points, tree.parent, tree.terminal, tree.correct, config=config)
    assert shaped.potential.tolist() == pytest.approx([0, 0.5, 0], abs=1e-7)  # a failed leaf stays one
    assert shaped.reward.tolist() == pytest.approx([0, 0.5, 0], abs=1e-7)
    assert shape(tree.points, tree.parent, tree.terminal, tree.correct).reward.isnan().all()


def test_a_linear_map_first():
    tree = line([0, 0.25, 0.5], [-1, 0, 1], right=[2])
    turned = potentials.projected(torch.tensor([[0.0, 3.0], [1.0, 0.0]]))(tree)
    wanted = potentials.hyperbolic(line([0, 0.75, 1.5], [-1, 0, 1], right=[2]))
    torch.testing.assert_close(turned, wanted, atol=1e-7, rtol=1e-7)
    with pytest.raises(ValueError, match="weight: expected 2 rows, got 3"):
        potentials.projected(torch.eye(3))(tree)


def test_an_oracles_distance():
    tree = line([0, 1, 2], [-1, 0, 1], right=[2])
    assert potentials.from_distance(torch.tensor([4.0, 1.0, 0.0]))(tree).tolist() == [0, 0.75, 1]
    assert potentials.from_distance(torch.tensor([4.0, 6.0, math.inf]))(tree).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="remaining: expected numbers >= 0, got -1"):
        potentials.from_distance(torch.tensor([1.0, -1.0]))


def test_random_numbers_differ_between_trees_and_repeat_for_one():
    first, second = line([0, 1, 2, 3], [-1, 0, 0, 1], right=[3]), line([0, 1, 2.5, 3], [-1, 0, 0, 1], right=[3])
    rule = potentials.random_potential(0)
    assert torch.equal(rule(first), rule(first))
    assert not torch.equal(rule(first)[1:3], rule(second)[1:3])
    assert not torch.equal(rule(first)[1:3], potentials.random_potential(1)(first)[1:3])


def test_a_rule_of_ones_own_is_taken():
    tree = line([0, 1, 2], [-1, 0, 1], right=[2])
    config = ShapingConfig(potential=lambda states: states.correct.to(torch.float64))
    shaped = shape(tree.points, tree.parent, tree.terminal, tree.correct, config=config)
    assert shaped.reward.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="potential: expected one of 'contrastive'"):
        ShapingConfig(potential="curved")
