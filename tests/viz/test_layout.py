import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapha.geometry import PolarPoints
from lapha.viz import disk_layout, geodesic_arc


def random_tree(seed: int, size: int, reach: float, curvature: float = 1.0):
    rng = np.random.default_rng(seed)
    parent = np.array([-1] + [int(rng.integers(node)) for node in range(1, size)])
    tangent = torch.tensor(rng.normal(size=(size, 8)) * reach / np.sqrt(8), dtype=torch.float64)
    tangent[0] = 0
    return PolarPoints.from_tangent(tangent, curvature=curvature), parent


@pytest.mark.parametrize("angle", ["tree", "pca"])
@pytest.mark.parametrize("curvature", [1.0, 0.25])
def test_the_disk_radius_is_the_true_distance_from_the_root(angle, curvature):
    latents, parent = random_tree(0, 60, 0.7, curvature)
    layout = disk_layout(latents, parent, angle=angle, scale=1.0)
    drawn = np.hypot(*layout.xy.T)
    # the distance that the drawn point has from the disk's centre in the same space is the latent's own
    back = 2 * np.arctanh(drawn) / np.sqrt(curvature)
    np.testing.assert_allclose(back, layout.distance, rtol=1e-9)
    np.testing.assert_allclose(layout.distance, 2 * latents.radius.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layout.disk_radius(layout.distance), drawn, rtol=1e-9, atol=1e-12)
    assert layout.xy[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("reach", [1e-3, 40.0])
def test_trees_too_small_or_too_large_are_rescaled_without_changing_the_order(reach):
    latents, parent = random_tree(1, 40, reach)
    layout = disk_layout(latents, parent)
    drawn = np.hypot(*layout.xy.T)
    assert layout.scale != 1
    assert drawn.max() == pytest.approx(0.92)
    assert (np.argsort(drawn, kind="stable") == np.argsort(latents.radius.numpy(), kind="stable")).all()


def test_readable_trees_keep_the_true_radius():
    latents, parent = random_tree(1, 40, 0.9)
    assert disk_layout(latents, parent).scale == 1


@given(seed=st.integers(0, 10**6), size=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_subtrees_keep_together(seed, size):
    latents, parent = random_tree(seed, size, 0.8)
    layout = disk_layout(latents, parent)
    assert layout.xy.shape == (size, 2)
    assert np.isfinite(layout.xy).all()
    assert (np.hypot(*layout.xy.T) < 1).all()
    theta = np.arctan2(layout.xy[:, 1], layout.xy[:, 0]) % (2 * np.pi)
    leaves = [node for node in range(size) if node not in parent]
    order = sorted((leaf for leaf in leaves if leaf), key=lambda leaf: theta[leaf])
    for node in range(1, size):
        inside = [place for place, leaf in enumerate(order) if node in ancestors(parent, leaf)]
        assert inside == list(range(inside[0], inside[0] + len(inside)))


def ancestors(parent, node):
    out = [node]
    while parent[out[-1]] >= 0:
        out.append(int(parent[out[-1]]))
    return out


points = st.tuples(st.floats(0.01, 0.97), st.floats(-3.14, 3.14)).map(
    lambda polar: np.array([polar[0] * np.cos(polar[1]), polar[0] * np.sin(polar[1])])
)


@given(points, points)
@settings(max_examples=80, deadline=None)
def test_the_geodesic_meets_the_unit_circle_at_right_angles_and_holds_both_ends(start, end):
    arc = geodesic_arc(start, end)
    if arc.radius is None:
        assert abs(start[0] * end[1] - start[1] * end[0]) < 1e-9
        return
    # Oracle: the circle of that radius through both ends, on the side away from the origin, found by its chord.
    chord = end - start
    half = np.hypot(*chord) / 2
    height = mpmath.sqrt(mpmath.mpf(arc.radius) ** 2 - mpmath.mpf(half) ** 2)
    normal = np.array([-chord[1], chord[0]]) / (2 * half)
    centres = [(start + end) / 2 + sign * float(height) * normal for sign in (1, -1)]
    errors = [abs(c @ c - 1 - arc.radius**2) / (1 + arc.radius**2) for c in centres]
    assert min(errors) < 1e-5
    centre = centres[int(np.argmin(errors))]
    # the short way round from start to end, seen from the centre, turns as `clockwise` says (y upwards)
    turn = (start - centre)[0] * (end - centre)[1] - (start - centre)[1] * (end - centre)[0]
    if abs(turn) > 1e-6:
        assert arc.clockwise == (turn < 0)


def test_bad_input_names_the_argument():
    latents, parent = random_tree(0, 5, 1.0)
    with pytest.raises(ValueError, match=r"angle: expected one of 'pca', 'tree', got 'tsne'"):
        disk_layout(latents, parent, angle="tsne")
    with pytest.raises(ValueError, match=r"scale: expected a number > 0, got 0"):
        disk_layout(latents, parent, scale=0)
    with pytest.raises(ValueError, match=r"latents: expected batch shape \(4,\), got \(5,\)"):
        disk_layout(latents, parent[:4])
