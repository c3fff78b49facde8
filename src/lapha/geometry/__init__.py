"""Hyperbolic geometry that stays exact at any radius: points are kept as unit direction and radius.

`PoincareBall` needs geoopt, which is imported when it is first touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapha._imports import lazy_exports
from lapha.geometry.distance import dist, dist0, pairwise_dist
from lapha.geometry.maps import (
    busemann,
    expmap,
    expmap0,
    from_frame,
    geodesic,
    logmap,
    logmap0,
    mobius_add,
    parallel_transport,
    parallel_transport0,
    to_frame,
)
from lapha.geometry.midpoint import frechet_mean, weighted_midpoint
from lapha.geometry.points import PolarPoints

if TYPE_CHECKING:
    from lapha.geometry.poincare import PoincareBall as PoincareBall

__all__ = [
    "PoincareBall",
    "PolarPoints",
    "busemann",
    "dist",
    "dist0",
    "expmap",
    "expmap0",
    "frechet_mean",
    "from_frame",
    "geodesic",
    "logmap",
    "logmap0",
    "mobius_add",
    "pairwise_dist",
    "parallel_transport",
    "parallel_transport0",
    "to_frame",
    "weighted_midpoint",
]


__getattr__, __dir__ = lazy_exports(__name__, {"PoincareBall": "lapha.geometry.poincare"})
