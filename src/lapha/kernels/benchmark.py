"""Microbenchmarks of the distance kernels against the same formulas in plain torch; ``lapha bench`` prints them.

Contestants take turns, so that a ratio is of times measured side by side. Each time is the median of its calls, after a
warm-up that compiles what is compiled.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from lapha._checks import check, check_choice
from lapha.geometry import PolarPoints
from lapha.kernels.api import knn, nearest, pairwise_dist

Kernel: TypeAlias = Literal["pairwise_dist", "nearest", "knn"]
KERNELS: tuple[Kernel, ...] = ("pairwise_dist", "nearest", "knn")
NEIGHBORS = 10


@dataclass(frozen=True)
class Timing:
    """One kernel's times.

    Attributes:
        kernel: its name.
        shape: rows × columns × width of the latents.
        seconds: median time of one call.
        plain_seconds: the same by the plain formula; None where it does not fit into `memory_bytes`.
        calls: timed calls of each.
    """

    kernel: str
    shape: tuple[int, int, int]
    seconds: float
    plain_seconds: float | None
    calls: int

    @property
    def speedup(self) -> float | None:
        """How many times as long the plain formula takes."""
        return None if self.plain_seconds is None else self.plain_seconds / self.seconds


def run_benchmarks(
    *,
    rows: int = 1024,
    columns: int = 1024,
    width: int = 2048,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seconds: float = 1.0,
    kernels: Sequence[str] = KERNELS,
    seed: int = 0,
    memory_bytes: int = 2 << 30,
) -> list[Timing]:
    """Time the kernels on random latents.

    Args:
        rows, columns: N and M, ≥ 1: distances are between N and M latents.
        width: H, numbers per latent, ≥ 1.
        device: where.
        dtype: of the latents.
        seconds: time for each kernel, > 0; at least three calls are made.
        kernels: which of `KERNELS`.
        seed: of the latents.
        memory_bytes: the plain formula is left out where its largest array is larger.

    Raises:
        ValueError: an unknown kernel, or a value outside its range.
    """
    for name, value in (("rows", rows), ("columns", columns), ("width", width)):
        check(value >= 1, name, "an integer >= 1", value)
    check(seconds > 0, "seconds", "a number > 0", seconds)
    for kernel in kernels:
        check_choice(kernel, "kernel", KERNELS)
    generator = torch.Generator().manual_seed(seed)
    scale = width**-0.5
    x, y = (
        PolarPoints.from_tangent((torch.randn(size, width, generator=generator) * scale).to(device, dtype))
        for size in (rows, columns)
    )
    fits = 8 * rows * columns <= memory_bytes
    count = min(NEIGHBORS, columns)
    contestants: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "pairwise_dist": (lambda: pairwise_dist(x, y), lambda: plain_distance(x, y)),
        "nearest": (lambda: nearest(x, y), lambda: plain_distance(x, y).min(dim=1)),
        "knn": (lambda: knn(x, y, count), lambda: plain_distance(x, y).topk(count, dim=1, largest=False)),
    }
    return [
        _time(kernel, (rows, columns, width), *contestants[kernel], seconds=seconds, plain=fits) for kernel in kernels
    ]


def plain_distance(x: PolarPoints, y: PolarPoints) -> torch.Tensor:
    """(N, M) distances by the textbook formula in the ball, all at once: what most code does.

    Source: d = 2/√c · artanh(√c ‖−x ⊕ y‖), here as arcosh(1 + 2c‖x − y‖²/((1 − c‖x‖²)(1 − c‖y‖²)))/√c.
    """
    c = x.curvature
    a, b = (_ball(points) for points in (x, y))
    square = torch.cdist(a, b).square()
    left, right = (1 - c * points.square().sum(-1) for points in (a, b))
    return torch.acosh(1 + (2 * c * square / (left[:, None] * right[None]).clamp_min(1e-12)).clamp_min(0)) / c**0.5


def _ball(points: PolarPoints) -> torch.Tensor:
    c = points.curvature
    return (points.direction * (torch.tanh(c**0.5 * points.radius) / c**0.5)[:, None]).float()


def _time(
    kernel: str,
    shape: tuple[int, int, int],
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    seconds: float,
    plain: bool,
) -> Timing:
    runs = [ours, other] if plain else [ours]
    for run in runs:
        run()
    _synchronize()
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds
    while len(times[0]) < 3 or time.perf_counter() < end:
        for run, own in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            _synchronize()
            own.append(time.perf_counter() - start)
    medians = [statistics.median(own) for own in times]
    return Timing(kernel, shape, medians[0], medians[1] if plain else None, len(times[0]))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
