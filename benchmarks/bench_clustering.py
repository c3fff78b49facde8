"""Cluster and prune: N nodes of dimension D, against float32 matmul + scipy's average linkage.

The ceiling is what anyone would write: one float32 matrix product, Euclidean distances from it, scipy's linkage. Beside
it: the plain O(N³) form (up to 192 nodes), each part of lapha's own work alone, other linkages on the same matrix, and an
incremental pass over 500 new nodes. --quality measures what is found instead of how fast: planted paraphrase clusters at
several radii, or step embeddings from a file (benchmarks/paraphrases.py makes one).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cubic_clustering import cluster_and_prune
from benchmarks.data import tree_latents
from benchmarks.harness import Case, Contestant, Session, Skipped
from benchmarks.planted import cut_configs, planted_latents, quality
from benchmarks.records import write_records
from lapha.geometry import PolarPoints
from lapha.pruning import IncrementalPruner, prune
from lapha.pruning._distances import distance_matrix
from lapha.pruning._linkage import _link_chain, _link_scipy

_SIZES = {
    "smoke": [(48, 32), (200, 32)],
    "default": [(64, 1536), (192, 1536), (1024, 1536), (4096, 1536), (20000, 1536)],
}
_CUBIC_UP_TO = 192
# Above this, matrices in float64 and their copies would not fit beside the rest in 4 GB.
_FLOAT64_UP_TO = 8192
_NEW = 500
_QUALITY = {
    "smoke": ([0.5], [0.1], [0.5], 1),
    "default": ([0.1, 0.3, 0.7, 2.0, 6.0, 12.0], [0.05, 0.15, 0.3, 0.5], [1 / 3, 0.6], 5),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, help="only this number of nodes")
    parser.add_argument("--quality", action="store_true", help="measure what is found, not how fast")
    parser.add_argument(
        "--embeddings",
        type=Path,
        metavar="FILE",
        help="with --quality, instead of planted clusters: safetensors with h (N, H), root (H,) and label (N,) of real steps",
    )


def run(args: argparse.Namespace, session: Session) -> None:
    if args.quality:
        _run_quality(args, session)
        return
    for n, d in _SIZES[args.sizes]:
        if args.nodes in (None, n):
            points = tree_latents(n, d, session.device)
            session.measure(Case({"N": n, "D": d}, "float32", _contestants(points)))


def _contestants(points: PolarPoints) -> list[Contestant | Skipped]:
    size = len(points)
    entries: list[Contestant | Skipped] = []
    if size <= _FLOAT64_UP_TO:
        entries.append(Contestant("matmul + scipy", lambda: _matmul_and_scipy(points.direction), ceiling=True))
    else:
        entries.append(Skipped("matmul + scipy", "two float64 copies of the distances do not fit in 4 GB"))
    entries.append(Contestant("lapha prune", lambda: prune(points), labels=_agreement(points)))
    entries.append(Contestant("lapha distances alone", lambda: distance_matrix(points)))
    entries += _linkages(points)
    entries.append(_incremental(points))
    if size <= _CUBIC_UP_TO:
        ball = points.to_ball().cpu().numpy()
        entries.append(Contestant("plain O(N^3) form", lambda: cluster_and_prune(ball)))
    else:
        entries.append(Skipped("plain O(N^3) form", f"minutes to hours above {_CUBIC_UP_TO} nodes"))
    return entries


def _matmul_and_scipy(x: torch.Tensor) -> Any:
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distances = (2 - 2 * (x @ x.T)).clamp_min(0).sqrt_().cpu().numpy()
    return linkage(squareform(distances, checks=False), "average")


def _agreement(points: PolarPoints) -> dict[str, Any]:
    """Whether lapha's clusters are the plain form's."""
    if len(points) > _CUBIC_UP_TO:
        return {}
    labels, _ = cluster_and_prune(points.to_ball().cpu().numpy())
    return {"same_clusters_as_plain": bool((prune(points).labels.numpy() == labels).all())}


def _linkages(points: PolarPoints) -> list[Contestant | Skipped]:
    """Average linkage alone, on one matrix; each call works on a copy of its own."""
    matrix = distance_matrix(points)
    ways: dict[str, Callable[[], Any]] = {"linkage: chain, float32": lambda: _link_chain(matrix.copy(), "average")}
    if len(points) <= _FLOAT64_UP_TO:
        ways["linkage: scipy, float64"] = lambda: _link_scipy(matrix, "average")
        upper = np.triu_indices(len(matrix), 1)
        try:
            import fastcluster
        except ImportError:
            return [*map(Contestant, ways, ways.values()), Skipped("linkage: fastcluster", "not installed")]
        ways["linkage: fastcluster"] = lambda: fastcluster.linkage(matrix[upper].astype(np.float64), "average")
    return [Contestant(name, way) for name, way in ways.items()]


def _incremental(points: PolarPoints) -> Contestant:
    """A pass over the last nodes when the others are known; the state before it is kept, so that it can be repeated."""
    new = min(_NEW, len(points) // 4)
    pruner = IncrementalPruner(full_every=1e9)
    pruner.update(points[: len(points) - new])
    before = dict(pruner.__dict__)

    def update() -> Any:
        pruner.__dict__.update(before)
        return pruner.update(points)

    return Contestant(
        "lapha incremental pass", update, labels={"new_nodes": new, "clusters": sum(map(len, before["_medoids"]))}
    )


def _run_quality(args: argparse.Namespace, session: Session) -> None:
    radii, jitters, fractions, seeds = _QUALITY[args.sizes]
    if args.embeddings is not None:
        from safetensors.torch import load_file

        from lapha.latent import latent_points

        file = load_file(args.embeddings)
        points, truth = latent_points(file["h"], file["root"]), file["label"].numpy()
        for fraction in fractions:
            _record_quality(session, points, truth, fraction, {"source": args.embeddings.name})
        return
    for radius, jitter, fraction, seed in product(radii, jitters, fractions, range(seeds)):
        points, truth = planted_latents(40, 32 if args.sizes == "smoke" else 1536, radius, jitter, seed)
        about = {"radius": radius, "jitter": jitter, "seed": seed}
        _record_quality(session, points, truth, fraction, {"source": "planted", **about})


def _record_quality(
    session: Session, points: PolarPoints, truth: np.ndarray, fraction: float, about: dict[str, Any]
) -> None:
    """One record a cut, printed and appended to the result file; the table of times leaves them out."""
    shape = {"N": len(points), "D": points.dim}
    for name, config in cut_configs(points, truth):
        found = quality(points, truth, config, fraction)
        record = {**session.facts, "suite": "clustering-quality", "shape": shape, "name": name, "fraction": fraction}
        write_records([{**record, **about, **found}], session.output)
        place = " ".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in about.items()
        )
        print(
            f"{place} fraction={fraction:.2f} {name:<24} ARI {found['adjusted_rand_index']:.3f}"
            f"  kept {found['kept']:.3f} (at random {found['kept_at_random']:.3f}, disabled {found['disabled']:.2f})",
            flush=True,
        )
