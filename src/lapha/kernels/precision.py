"""How inner products are computed, what error that allows, and when a pair must be refined.

Distances need ‖u − t‖². The fast way is a matrix product of centred directions A = u − m, B = t − m (m: the mean of the
second set, so that latents which all lean one way do not cancel): ‖u − t‖² = ‖A‖² + ‖B‖² − 2 A·B. Its rounding error
is a small multiple of N = (‖A‖² + ‖B‖²)/2, so a pair is *flagged* when ‖u − t‖² < `threshold`·N and recomputed in a
way whose error is relative to ‖u − t‖² itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lapha._checks import check_choice


@dataclass(frozen=True, slots=True)
class Precision:
    """One way to compute inner products.

    Attributes:
        name: ``"ieee"``, ``"tf32x3"`` or ``"bf16"``.
        threshold: pairs with ‖u − t‖² below this multiple of the mean squared centred norm are refined.
        tolerance: relative error of a distance that the threshold is chosen for.
    """

    name: str
    threshold: float
    tolerance: float


# ieee: the largest error of a float32 product of vectors of norm 1 that point the same way was 7e-7 over D = 64…4096, so
#   ‖u − t‖² is off by at most 1.4e-6 N, and the distance by half of that relative to ‖u − t‖²/N.
# tf32x3: three tensor-core passes; the accumulator truncates instead of rounding, hence the wider margin.
# bf16: rounding to 8 bits moves a direction by about 8e-4 of its centred length.
PRECISIONS = {
    "ieee": Precision("ieee", threshold=0.4, tolerance=2e-6),
    "tf32x3": Precision("tf32x3", threshold=0.5, tolerance=2e-6),
    "bf16": Precision("bf16", threshold=0.02, tolerance=2e-3),
}

# The same for float64 directions: an error of about 1e-15 N, and distances good to about 1e-12.
DOUBLE_THRESHOLD = 1e-3


def get_precision(name: str) -> Precision:
    """Look a precision up by name.

    Raises:
        ValueError: `name` is not one of the three.
    """
    check_choice(name, "precision", PRECISIONS)
    return PRECISIONS[name]


def refine_threshold(precision: Precision, dtype: torch.dtype, dim: int) -> float:
    """The flag threshold for directions of `dim` numbers that are computed in `dtype` (float32 or float64)."""
    if precision.name == "bf16":
        # the rounding of many numbers points anywhere, and a part of 1/√dim of it along u − t
        return max(precision.threshold, 5 / dim)
    return DOUBLE_THRESHOLD if dtype == torch.float64 else precision.threshold


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Float32 matrix products in full precision, whatever the process allows elsewhere (TF32, bfloat16, autocast)."""
    with torch.autocast(device.type, enabled=False), _no_reduced_products():
        yield


@contextmanager
def _no_reduced_products() -> Iterator[None]:
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    if all(hasattr(backend, "fp32_precision") for backend in backends):  # torch 2.9 and later
        previous = [backend.fp32_precision for backend in backends]
        for backend in backends:
            backend.fp32_precision = "ieee"
        try:
            yield
        finally:
            for backend, value in zip(backends, previous):
                backend.fp32_precision = value
        return
    level = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(level)
