"""What rounding latents to bfloat16 costs in their distances: ball points against a direction and a float32 radius.

python -m benchmarks.bfloat16_directions [OUTPUT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.records import run_facts, write_records
from lapha import PolarPoints, geometry, kernels

CASES = ((0.5, 0.3), (0.5, 0.9), (1.0, 0.3), (1.0, 0.9), (2.0, 0.3), (2.0, 0.9), (3.0, 0.9), (6.0, 0.9))
COUNT, DIM = 64, 1536


def latents(radius: float, cosine: float, generator: torch.Generator) -> PolarPoints:
    """2·COUNT float64 latents at one radius, every two of them at about this cosine."""
    noise = torch.randn(2 * COUNT, DIM, dtype=torch.float64, generator=generator)
    common = torch.randn(DIM, dtype=torch.float64, generator=generator)
    direction = cosine**0.5 * common / common.norm() + (1 - cosine) ** 0.5 * noise / noise.norm(dim=1, keepdim=True)
    return PolarPoints.from_tangent(radius * direction / direction.norm(dim=1, keepdim=True))


def ball_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The ball model's formula in float64, so that what is seen is the rounding of the points alone."""
    x, y = x.double(), y.double()
    square = (x[:, None] - y[None]).square().sum(2)
    room = (1 - x.square().sum(1))[:, None] * (1 - y.square().sum(1))[None]
    return torch.acosh(1 + 2 * square / room.clamp(min=1e-300))


def main(output: str) -> None:
    records = []
    for radius, cosine in CASES:
        both = latents(radius, cosine, torch.Generator().manual_seed(0))
        X, Y = both[:COUNT], both[COUNT:]
        exact = geometry.pairwise_dist(X, Y)
        ball = ball_distances(X.to_ball().bfloat16(), Y.to_ball().bfloat16())
        rounded = [PolarPoints(P.direction.bfloat16(), P.radius.float()) for P in (X, Y)]
        polar = kernels.pairwise_dist(*rounded, precision="ieee").double()
        errors = [float(((found - exact).abs() / exact).max()) for found in (ball, polar)]
        about = {"radius": radius, "cosine": cosine, "ball_error": errors[0], "polar_error": errors[1]}
        records.append(run_facts(torch.device("cpu")) | {"suite": "bfloat16", **about})
        print(f"| {radius:g} | {cosine:g} | {errors[0]:.1e} | {errors[1]:.1e} | {errors[1] / errors[0]:.2g} |")
    write_records(records, Path(output))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results/bfloat16-cpu.jsonl")
