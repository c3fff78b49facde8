"""Every tile configuration of the Triton kernels, with its time and error: what autotuning chooses from. CUDA only.

Also a few configurations that are not candidates because nobody has measured them: larger tiles, other section lengths
of the three-pass TF32 sums. The error column says what a section length costs in accuracy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.ceilings import matmul_ceilings
from benchmarks.data import nearest_error, pairwise_error, tree_latents
from benchmarks.harness import Case, Contestant, Session, Skipped
from lapha import kernels
from lapha.geometry import PolarPoints
from lapha.kernels import tuning
from lapha.kernels.tuning import TileConfig

_SIZES = {"smoke": [(256, 256, 64)], "default": [(16384, 16384, 1536)]}
_NEAREST_SIZES = {"smoke": [(256, 128, 64)], "default": [(65536, 1024, 1536)]}
_UNPROVEN = {
    ("pairwise", "tf32x3"): [
        TileConfig(128, 128, 32, 8, 3, 4),
        TileConfig(128, 128, 32, 8, 3, 48),
        TileConfig(128, 256, 32, 8, 2, 48),
        TileConfig(64, 256, 32, 8, 2),
    ],
    ("pairwise", "bf16"): [TileConfig(128, 256, 64, 8, 3), TileConfig(256, 128, 64, 8, 3)],
    ("nearest", "tf32x3"): [TileConfig(128, 128, 32, 8, 3), TileConfig(128, 64, 32, 4, 3)],
    ("nearest", "bf16"): [TileConfig(128, 256, 64, 8, 3)],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", nargs="*", default=["tf32x3", "bf16", "ieee"], help="which precisions (all)")


def run(args: argparse.Namespace, session: Session) -> None:
    if session.device.type != "cuda":
        raise SystemExit("tiles: needs a CUDA device (--device cuda)")
    for operation, sizes in (("pairwise", _SIZES), ("nearest", _NEAREST_SIZES)):
        for n, m, d in sizes[args.sizes]:
            X, Y = (tree_latents(count, d, session.device, seed) for seed, count in enumerate((n, m)))
            work = {"flops": 2.0 * n * m * d, "result_bytes": 4 * n * m if operation == "pairwise" else 12 * n}
            entries: list[Contestant | Skipped] = [*matmul_ceilings(X.direction, Y.direction)]
            for precision in args.precision:
                for config in _configurations(operation, precision, session.device):
                    entries.append(_contestant(operation, precision, config, X, Y, work))
            session.measure(Case({"N": n, "M": m, "D": d}, f"float32 {operation}", entries))


def _configurations(operation: str, precision: str, device: torch.device) -> list[TileConfig]:
    generation = torch.cuda.get_device_capability(device)[0]
    known = list(tuning.candidates(operation, precision, generation))
    return known + [config for config in _UNPROVEN.get((operation, precision), []) if config not in known]


def _contestant(
    operation: str, precision: str, config: TileConfig, X: PolarPoints, Y: PolarPoints, work: dict
) -> Contestant | Skipped:
    name = f"{precision} {config.block_m}×{config.block_n}×{config.block_k} {config.warps}w {config.stages}s /{config.section}"
    function = kernels.pairwise_dist if operation == "pairwise" else kernels.nearest

    def run_with() -> object:
        with _forced(config):
            return function(X, Y, backend="triton", precision=precision)

    def error(result: object) -> float:
        return pairwise_error(X, Y, result) if operation == "pairwise" else nearest_error(X, Y, *result)

    reason = _obstacle(run_with)
    return Contestant(name, run_with, error, **work) if reason is None else Skipped(name, reason)


def _obstacle(run: Callable[[], object]) -> str | None:
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources

    try:
        run()
    except (OutOfResources, CompilationError) as error:
        return str(error).splitlines()[0]
    return None


@contextmanager
def _forced(config: TileConfig) -> Iterator[None]:
    """Let the kernels run with `config` only."""
    previous = tuning.forced
    tuning.forced = config
    try:
        yield
    finally:
        tuning.forced = previous
