"""Distances and pooling at scale: chunked torch on any device, Triton on NVIDIA devices, one interface.

The mathematics is that of `lapha.geometry`; what is added is that no array but the result grows with N × M, and that
nearly all the time is spent in one matrix product.
"""

from __future__ import annotations

from lapha.kernels.api import PooledLatents, knn, nearest, pairwise_dist, pool_latents
from lapha.kernels.registry import Choice, explain, last_choice

__all__ = ["Choice", "PooledLatents", "explain", "knn", "last_choice", "nearest", "pairwise_dist", "pool_latents"]
