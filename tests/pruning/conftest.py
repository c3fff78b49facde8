"""Latents with planted clusters."""

from __future__ import annotations

import pytest
import torch

from lapha.geometry import PolarPoints


def planted_points(
    clusters: int, members: int, dim: int = 16, radius: float = 1.0, jitter: float = 0.02, seed: int = 0
) -> tuple[PolarPoints, torch.Tensor]:
    """Points jittered about random centres at tangent norm `radius`, shuffled, and the cluster of each."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.nn.functional.normalize(torch.randn(clusters, dim, generator=generator), dim=-1)
    noise = torch.randn(clusters, members, dim, generator=generator) / dim**0.5
    v = radius * (centre[:, None] + jitter * noise).reshape(-1, dim)
    order = torch.randperm(len(v), generator=generator)
    truth = torch.arange(clusters).repeat_interleave(members)
    return PolarPoints.from_tangent(v[order]), truth[order]


@pytest.fixture
def planted():
    return planted_points
