"""Which tile sizes a Triton kernel runs with: measured once for a class of shapes, and remembered on disk.

A shape class is the operation, the precision, the device's compute capability, and each size rounded up to a power of
two. ``LAPHA_AUTOTUNE=0`` takes the first candidate without measuring; ``LAPHA_CACHE_DIR`` says where the file is.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lapha._store import replace_file

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_chosen: dict[str, TileConfig] = {}


@dataclass(frozen=True, slots=True)
class TileConfig:
    """Sizes of a tile product.

    Attributes:
        block_m, block_n, block_k: rows, columns and depth of a tile.
        warps, stages: warps of a program, loads in flight.
        section: TF32 only: steps of block_k that are summed in the tensor core before rounding.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    section: int = 16


# Set by the benchmark of tile configurations: the one that every kernel takes, whatever its class of shapes.
forced: TileConfig | None = None

# Candidates by (operation, precision) and the device's generation (major compute capability, 8 for 8.x); the first is the
# default. All of them compile without register spills; the defaults do with Triton 3.6 and 3.9.
_CANDIDATES: dict[tuple[str, str], dict[int, list[TileConfig]]] = {
    ("pairwise", "ieee"): {key: [TileConfig(64, 64, 16, 4, 2), TileConfig(128, 64, 16, 8, 2)] for key in (8, 9, 10)},
    ("nearest", "ieee"): {key: [TileConfig(64, 64, 16, 4, 2), TileConfig(32, 64, 32, 4, 2)] for key in (8, 9, 10)},
    ("pairwise", "tf32x3"): {
        8: [TileConfig(128, 64, 16, 8, 3, 32), TileConfig(64, 64, 32, 8, 2)],
        9: [TileConfig(128, 128, 32, 8, 3), TileConfig(128, 128, 32, 8, 2)],
        10: [TileConfig(64, 128, 32, 8, 3), TileConfig(128, 64, 32, 8, 3)],
    },
    ("nearest", "tf32x3"): {
        8: [TileConfig(128, 64, 16, 8, 3, 32)],
        9: [TileConfig(128, 64, 32, 8, 3)],
        10: [TileConfig(128, 64, 32, 8, 3)],
    },
    ("pairwise", "bf16"): {
        8: [TileConfig(128, 64, 64, 8, 3), TileConfig(64, 64, 64, 4, 3)],
        9: [TileConfig(128, 128, 64, 8, 3), TileConfig(128, 128, 64, 8, 4)],
        10: [TileConfig(64, 128, 64, 8, 3), TileConfig(128, 128, 64, 8, 3), TileConfig(128, 64, 64, 8, 3)],
    },
    ("nearest", "bf16"): {
        8: [TileConfig(128, 64, 64, 8, 3), TileConfig(64, 64, 64, 4, 3)],
        9: [TileConfig(128, 128, 64, 8, 3), TileConfig(64, 128, 64, 4, 3)],
        10: [TileConfig(128, 64, 64, 8, 3)],
    },
}
# For the interpreter, where a tile costs the same whatever is in it.
_INTERPRETED = TileConfig(32, 32, 32, 4, 1, section=2)


def candidates(operation: str, precision: str, generation: int) -> Sequence[TileConfig]:
    """Configurations worth trying on a generation of devices (major compute capability), the default first."""
    return _CANDIDATES[operation, precision][max(8, min(generation, 10))]


def shape_class(*sizes: int) -> tuple[int, ...]:
    """Sizes rounded up to powers of two."""
    return tuple(1 << max(0, size - 1).bit_length() for size in sizes)


def tile_config(
    operation: str,
    precision: str,
    sizes: tuple[int, ...],
    device: torch.device,
    run: Callable[[TileConfig], object],
) -> TileConfig:
    """The configuration for this shape class.

    Args:
        sizes: what the class is made from, such as (N, M, K).
        run: launches the kernel with a configuration; called to measure candidates, on CUDA only.
    """
    if forced is not None:
        return forced
    if device.type != "cuda":
        return _INTERPRETED
    options = candidates(operation, precision, torch.cuda.get_device_capability(device)[0])
    if os.environ.get("LAPHA_AUTOTUNE", "1") == "0":
        return options[0]
    name = torch.cuda.get_device_name(device)
    key = "/".join([operation, precision, name, *map(str, shape_class(*sizes))])
    with _lock:
        if not _chosen:
            _chosen.update(_read_cache())
        if key not in _chosen:
            _chosen[key] = _fastest(options, run)
            logger.info("%s: tiles %s", key, _chosen[key])
            _write_cache(_chosen)
        return _chosen[key]


def _fastest(options: Sequence[TileConfig], run: Callable[[TileConfig], object]) -> TileConfig:
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources, PTXASError
    from triton.testing import do_bench

    times: dict[TileConfig, float] = {}
    for config in options:
        try:
            times[config] = do_bench(lambda config=config: run(config), warmup=5, rep=30, return_mode="median")
        except (OutOfResources, CompilationError, PTXASError, RuntimeError) as error:
            # too much shared memory for this device, or tiles that this version of Triton cannot compile; its passes
            # fail with a plain RuntimeError, which must not be taken for one of the device's
            if type(error) is RuntimeError and "PassManager" not in str(error):
                raise
            logger.info("tiles %s cannot be used: %s", config, error)
    if not times:
        raise RuntimeError(f"none of the tile configurations {list(options)} runs on this device")
    return min(times, key=times.__getitem__)


def cache_file() -> Path:
    """Where configurations are remembered."""
    folder = os.environ.get("LAPHA_CACHE_DIR")
    return (Path(folder) if folder else Path.home() / ".cache" / "lapha") / "tiles.json"


def _read_cache() -> dict[str, TileConfig]:
    try:
        content = json.loads(cache_file().read_text(encoding="utf-8"))
        return {key: TileConfig(**value) for key, value in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:  # unreadable, or of another version
        logger.warning("%s is ignored: %s", cache_file(), error)
        return {}


def _write_cache(chosen: dict[str, TileConfig]) -> None:
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({key: asdict(value) for key, value in chosen.items()}, indent=1)
        replace_file(path, text.encode())  # whole or not at all: another process may be reading
    except (OSError, ValueError) as error:
        logger.warning("tile configurations cannot be kept in %s: %s", path, error)
