"""Hyperbolic geometry that stays exact at any radius: points are kept as unit direction and radius."""

from __future__ import annotations

from lapha.geometry.distance import dist, dist0, pairwise_dist
from lapha.geometry.points import PolarPoints

__all__ = ["PolarPoints", "dist", "dist0", "pairwise_dist"]
