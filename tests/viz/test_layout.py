"""Where nodes go: radii follow the distance from the root, subtrees keep together, geodesics are orthogonal to the rim."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints
from lapha.viz import disk_layout, geodesic_arc, radial_scale


def random_tree(seed: int, size: int, reach: float, curvature: float = 1.0):
    rng = np.random.default_rng(seed)
    parent = np.array([-1] + [int(rng.integers(node)) for node in range(1, size)])
    tangent = torch.tensor(rng.normal(size=(size, 8)) * reach / np.sqrt(8), dtype=torch.float64)
    tangent[0] = 0
    return PolarPoints.from_tangent(tangent, curvature=curvature), parent


@pytest.mark.parametrize("angle", ["tree", "pca"])
@pytest.mark.parametrize("reach", [1e-6, 0.3, 40.0])
def test_farther_nodes_are_drawn_farther_out(angle, reach):
    latents, parent = random_tree(0, 60, reach)
    layout = disk_layout(latents, parent, angle=angle)
    drawn = np.hypot(*layout.xy.T)
    np.testing.assert_allclose(layout.distance, 2 * latents.radius.numpy(), rtol=1e-12)
    assert layout.xy[0].tolist() == [0.0, 0.0]
    assert drawn.max() == pytest.approx(0.94)
    order = np.argsort(layout.distance)
    assert (np.diff(drawn[order]) >= -1e-12).all()


def test_a_crowded_shell_comes_apart():
    """Nine of ten nodes of a real tree lie in a thin shell: they must not be drawn in one."""
    rng = np.random.default_rng(0)
    distance = np.concatenate([[0.0], rng.uniform(0.70, 0.92, 180), rng.uniform(0.1, 0.7, 20)])
    knots = radial_scale(distance)
    low, high = np.interp([np.quantile(distance[1:], q) for q in (0.1, 0.9)], *zip(*knots))
    assert high - low > 0.35
    assert (np.diff([d for d, _ in knots]) > 0).all()
    assert (np.diff([r for _, r in knots]) >= 0).all()


def test_rings_lie_well_apart_and_hold_true_distances():
    latents, parent = random_tree(3, 200, 0.4)
    layout = disk_layout(latents, parent)
    radii = layout.radius(np.array(layout.rings))
    assert len(layout.rings) >= 3
    assert (np.diff(radii) > 0.1 - 1e-9).all()
    assert max(layout.rings) <= layout.distance.max()


def test_a_tree_whose_nodes_all_coincide_has_a_layout():
    points = PolarPoints.from_tangent(torch.zeros(4, 3))
    layout = disk_layout(points, np.array([-1, 0, 0, 1]))
    assert np.isfinite(layout.xy).all()
    assert np.hypot(*layout.xy.T).max() == 0


@given(seed=st.integers(0, 10**6), size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_subtrees_keep_together(seed, size):
    latents, parent = random_tree(seed, size, 0.8)
    layout = disk_layout(latents, parent)
    assert layout.xy.shape == (size, 2)
    assert (np.hypot(*layout.xy.T) < 1).all()
    theta = layout.theta % (2 * np.pi)
    leaves = [node for node in range(1, size) if node not in parent]
    order = sorted(leaves, key=lambda leaf: theta[leaf])
    for node in range(1, size):
        inside = [index for index, leaf in enumerate(order) if node in ancestors(parent, leaf)]
        assert inside == list(range(inside[0], inside[0] + len(inside)))


def ancestors(parent, node):
    found = {node}
    while parent[node] >= 0:
        node = int(parent[node])
        found.add(node)
    return found


def test_the_first_principal_direction_orders_siblings_as_numpy_says():
    """Against a dense SVD, for trees with more nodes than dimensions and with fewer."""
    for size, width in ((50, 6), (20, 64)):
        rng = np.random.default_rng(size)
        tangent = torch.tensor(rng.normal(size=(size, width)))
        tangent[0] = 0
        points = PolarPoints.from_tangent(tangent)
        layout = disk_layout(points, np.array([-1] + [0] * (size - 1)))
        centered = points.direction.numpy()[1:] - points.direction.numpy()[1:].mean(0)
        u, s, _ = np.linalg.svd(centered, full_matrices=False)
        along = u[:, 0] * s[0]
        along *= np.sign(along[np.abs(along).argmax()])
        assert np.argsort(layout.theta[1:]).tolist() == np.argsort(along).tolist()


@given(
    r0=st.floats(0.01, 0.99), t0=st.floats(0, 6.28), r1=st.floats(0.01, 0.99), t1=st.floats(0, 6.28)
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_arcs_are_orthogonal_to_the_rim_and_pass_both_ends(r0, t0, r1, t1):
    start, end = (np.array([r * np.cos(t), r * np.sin(t)]) for r, t in ((r0, t0), (r1, t1)))
    arc = geodesic_arc(start, end)
    if arc.radius is None or arc.radius > 1e3:
        return
    # center from mpmath: 2 m·p = 1 + |p|² for both ends
    matrix = mpmath.matrix([[2 * start[0], 2 * start[1]], [2 * end[0], 2 * end[1]]])
    center = mpmath.lu_solve(matrix, mpmath.matrix([1 + start @ start, 1 + end @ end]))
    assert float(mpmath.sqrt(center[0] ** 2 + center[1] ** 2 - 1)) == pytest.approx(arc.radius, rel=1e-6)


def test_bad_input_is_named():
    latents, parent = random_tree(0, 5, 0.5)
    with pytest.raises(ValueError, match="angle: expected"):
        disk_layout(latents, parent, angle="spiral")
    with pytest.raises(ValueError, match="latents: expected batch shape"):
        disk_layout(latents, parent[:4])
