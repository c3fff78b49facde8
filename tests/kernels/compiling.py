"""Compile the Triton kernels for a device that is not there, and read what came out."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

_DUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_POINTERS = {"ieee": "*fp32", "tf32x3": "*fp32", "bf16": "*bf16"}
_MODES = {"ieee": 0, "tf32x3": 1, "bf16": 2}
# Sizes and strides that are multiples of 16 in practice, as the launcher would find.
_ALIGNED = (
    "K",
    "D",
    "width",
    "x_width",
    "y_width",
    "H",
    "x_stride",
    "y_stride",
    "row_stride",
    "token_stride",
    "sequence_stride",
)


@dataclass(frozen=True)
class Compiled:
    """Registers of a thread, how often it moves one to or from local memory, shared memory of a program, and the code."""

    registers: int
    spills: int
    shared: int
    ptx: str

    def count(self, instruction: str) -> int:
        """How often an instruction occurs in the PTX."""
        return len(re.findall(re.escape(instruction), self.ptx))


def compile_kernel(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], capability: int, warps: int = 4, stages: int = 2
) -> Compiled:
    """Compile `kernel` for a compute capability such as 90."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = [i for i, name in enumerate(names) if signature[name].startswith("*") or name in _ALIGNED]
    source = ASTSource(
        kernel, signature=signature, constexprs=constants, attrs={(i,): [["tt.divisibility", 16]] for i in aligned}
    )
    options = {"num_warps": warps, "num_stages": stages}
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage, code = _disassemble(built.asm["cubin"], "--dump-resource-usage"), _disassemble(built.asm["cubin"], "-sass")
    (registers,) = re.findall(r"\bREG:(\d+)", usage)
    spills = len(re.findall(r"\b(?:STL|LDL)\b", code))
    return Compiled(int(registers), spills, built.metadata.shared, built.asm["ptx"])


def _disassemble(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([str(_DUMP), option, file.name], capture_output=True, text=True, check=True).stdout


def tile_kernel(operation: str, precision: str, capability: int, config: Any) -> Compiled:
    """The first pass of ``"pairwise"`` or ``"nearest"`` with a tile configuration."""
    from lapha.kernels.nearest_triton import nearest_kernel
    from lapha.kernels.pairwise_triton import pairwise_kernel

    operand = _POINTERS[precision]
    types = dict.fromkeys(("x_high", "x_low", "y_high", "y_low"), operand)
    types |= dict.fromkeys(("x_terms", "y_terms", "y_margin", "out", "w_out"), "*fp32")
    types |= dict.fromkeys(("at_most_out", "at_least_out"), "*fp32")
    types |= {
        "flags": "*i32",
        "index_out": "*i64",
        "N": "i32",
        "M": "i32",
        "K": "i32",
        "x_width": "i32",
        "y_width": "i32",
    }
    types |= {"threshold": "fp32", "inv_sqrt_c": "fp32", "error": "fp32"}
    constants = {
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "MODE": _MODES[precision],
        "SECTION": config.section,
    }
    kernel = pairwise_kernel if operation == "pairwise" else nearest_kernel
    if operation == "pairwise":
        constants["GROUP"] = 8
    return compile_kernel(kernel, types, constants, capability, config.warps, config.stages)


def other_kernel(name: str, capability: int) -> Compiled:
    """One of the kernels without a tensor-core product, with what its launcher passes for bfloat16 or float32 input."""
    from lapha.kernels import pooling_triton, prepare_triton, refine_triton

    numbers = dict.fromkeys(("N", "M", "D", "K", "B", "L", "H", "parts"), "i32")
    numbers |= dict.fromkeys(("width", "x_width", "y_width"), "i32")
    numbers |= dict.fromkeys(("x_stride", "y_stride", "row_stride", "radius_stride", "root_stride"), "i32")
    numbers |= dict.fromkeys(("sequence_stride", "token_stride", "mask_stride_b", "mask_stride_l"), "i32")
    numbers |= dict.fromkeys(("inv_sqrt_c", "sqrt_c", "scale", "absent_complement", "absent_gain"), "fp32")
    arrays = dict.fromkeys(("x_terms", "y_terms", "terms", "out", "bound", "at_least", "best_out", "radius"), "*fp32")
    arrays |= dict.fromkeys(("x_stored", "y_stored", "stored", "centre", "high", "low", "partial", "root"), "*fp32")
    arrays |= dict.fromkeys(("total_out", "mean_out", "direction_out", "radius_out", "running_sum"), "*fp32")
    arrays |= {
        "tiles": "*i32",
        "count": "*i32",
        "where_out": "*i32",
        "hidden": "*bf16",
        "mask": "*u8",
        "starts": "*i32",
    }
    arrays |= {"counts": "*i64", "count_out": "*i64", "running_count": "*i64"}
    pairs = {"BLOCK": 16, "BLOCK_K": 32}
    kernels = {
        "prepare": (prepare_triton.prepare_kernel, {"MODE": 1, "HALF": False, "ROWS": 2, "BLOCK": 1024}),
        "refine": (refine_triton.refine_kernel, {"TILE_M": 128, "TILE_N": 128, **pairs}),
        "nearest refine": (refine_triton.nearest_refine_kernel, {"BLOCK_N": 128, **pairs}),
        "sum": (pooling_triton.sum_kernel, {"MASKED": True, "PACKED": False, "ROWS": 16, "COLUMNS": 512}),
        "finish": (pooling_triton.finish_kernel, {"RUNNING": True, "CENTRED": True, "MOST_PARTS": 64, "COLUMNS": 1024}),
    }
    kernel, constants = kernels[name]
    return compile_kernel(kernel, numbers | arrays, constants, capability)
