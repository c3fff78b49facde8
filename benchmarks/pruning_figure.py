"""Pruning's time and memory against the number of nodes, from a result file of the clustering suite.

python -m benchmarks.pruning_figure benchmarks/results/clustering-cpu.jsonl docs/images/pruning.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from benchmarks.records import read_records

CONTESTANTS = ("lapha prune", "lapha incremental pass", "matmul + scipy", "plain O(N^3) form")


def draw(source: str, picture: str) -> None:
    """Two panels, log-log: median milliseconds, and megabytes beyond the latents."""
    records = [
        record for record in read_records(Path(source)) if record["suite"] == "clustering" and "median_ms" in record
    ]
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lapha"})  # small, and the same every time
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for panel, key, scale, label in zip(
        panels, ("median_ms", "peak_extra_bytes"), (1, 1e-6), ("ms", "MB beyond the latents"), strict=True
    ):
        for name in CONTESTANTS:
            points = sorted((r["shape"]["N"], r[key] * scale) for r in records if r["name"] == name and r.get(key))
            panel.loglog(*zip(*points, strict=True), marker="o", label=name)
        panel.set_xlabel("nodes (D = 1536)")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw(*sys.argv[1:3])
