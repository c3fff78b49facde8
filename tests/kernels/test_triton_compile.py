"""The Triton kernels compile for devices that are not here, with tensor-core instructions and without register spills.

By default the tile configuration that runs without autotuning is compiled for the newest and the oldest generation in
each precision; set ``LAPHA_TEST_ALL_TILES=1`` for all candidates on all generations (minutes).
"""

from __future__ import annotations

import os

import pytest

pytest.importorskip("triton")

from compiling import Compiled, other_kernel, tile_kernel

from lapha.kernels.tuning import TileConfig, candidates

GENERATIONS = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
ALL = os.environ.get("LAPHA_TEST_ALL_TILES") == "1"
# How the PTX of the three generations names the operands of a product.
_OPERANDS = {"tf32x3": ("tf32",), "bf16": ("bf16.bf16", "kind::f16")}
# Shared memory that a program can have.
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


def check_resources(built: Compiled, capability: int, allowed: int = 0) -> None:
    """No register moved to local memory, and shared memory that the device has."""
    assert built.spills <= allowed, (
        f"{built.spills} loads and stores of spilled registers ({built.registers} registers)"
    )
    assert built.shared <= SHARED[capability]


def tile_cases() -> list[tuple[str, str, int, TileConfig]]:
    cases = []
    for operation in ("pairwise", "nearest"):
        for precision in ("tf32x3", "bf16", "ieee"):
            for capability in GENERATIONS:
                options = candidates(operation, precision, capability // 10)
                cases += [(operation, precision, capability, option) for option in (options if ALL else options[:1])]
    if ALL:
        return cases
    # one of each generation and precision for each operation would take a minute; the product is shared by both
    return [case for case in cases if case[:3] in _CHOSEN]


_CHOSEN = [
    ("pairwise", "tf32x3", 90),
    ("pairwise", "bf16", 80),
    ("pairwise", "bf16", 100),
    ("nearest", "tf32x3", 80),
    ("nearest", "tf32x3", 100),
    ("nearest", "bf16", 90),
    ("nearest", "ieee", 90),
]


@pytest.mark.parametrize(("operation", "precision", "capability", "config"), tile_cases())
def test_products_use_tensor_cores_and_spill_nothing(
    operation: str, precision: str, capability: int, config: TileConfig
) -> None:
    built = tile_kernel(operation, precision, capability, config)
    check_resources(built, capability)
    products = built.count(GENERATIONS[capability])
    if precision == "ieee":
        assert products == 0
        assert built.count("fma.rn.f32") > 100
    else:
        assert products > 0
        assert any(built.count(word) for word in _OPERANDS[precision])
    assert built.count("cp.async") > 0  # operands are on their way while the product runs


@pytest.mark.parametrize("capability", GENERATIONS if ALL else [90])
@pytest.mark.parametrize("name", ["prepare", "refine", "nearest refine", "sum", "finish"])
def test_other_kernels_spill_nothing(name: str, capability: int) -> None:
    built = other_kernel(name, capability)
    # Triton 3.6 keeps one number of the last, small kernel in memory, outside its loops
    check_resources(built, capability, allowed=3 if name == "finish" else 0)
    if name == "sum":  # 16 bytes a load, and nothing of the input's size is written
        assert built.count("ld.global.v4.b32") > 0
