"""Which of lapha's back ends and precisions can run here."""

from __future__ import annotations

from lapha.geometry import PolarPoints
from lapha.kernels.precision import PRECISIONS
from lapha.kernels.registry import BACKENDS, choose


def lapha_variants(operation: str, points: PolarPoints) -> list[tuple[str, str]]:
    """(backend, precision) pairs that an explicit choice accepts for `points`."""
    found = []
    for backend in BACKENDS:
        for precision in PRECISIONS:
            if backend == "auto":
                continue
            try:
                choose(operation, points.device, points.dtype, backend, precision)
            except ValueError:  # cannot run here; MissingExtraError is one too
                continue
            found.append((backend, precision))
    return found
