"""Rollout: trees a second on two processes against one, one thread each, the embedded policy.

Every process has a trainer (gloo) and grows the trees of its own questions with the rollout that training uses; nobody
waits for another before the end. As in training, each process has the same number of trees however many there are.
The groups of processes take turns; a group's time runs from its common start to its last process' last tree.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import Session
from benchmarks.records import write_records

_ROOT = Path(__file__).parents[1]
# (trees of a process, simulations of each)
_SIZES = {"smoke": (2, 2), "default": (32, 16)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="sizes of the groups (1 2)")


def run(args: argparse.Namespace, session: Session) -> None:
    if session.device.type != "cpu":
        raise ValueError(f"device: expected cpu, got {session.device}")
    trees, simulations = _SIZES[args.sizes]
    print(f"{session.suite} trees={trees} simulations={simulations}", flush=True)
    groups = [Group(size, trees, simulations) for size in args.processes]
    try:
        for group in groups:
            group.grow()  # warms up
        for _ in range(session.repeats):
            for group in groups:
                if sum(group.seconds) < session.seconds or len(group.seconds) < 3:
                    group.seconds.append(group.grow())
    finally:
        for group in groups:
            group.close()
    for group in groups:
        record = _record(session, group, groups[0], trees, simulations)
        print(f"  {record['name']:<14} {record['trees_per_s']:8.2f} trees/s  {record['speed_ratio']:.2f} ×", flush=True)
        write_records([record], session.output)
        session.records.append(record)


class Group:
    """Some processes that roll out together."""

    def __init__(self, size: int, trees: int, simulations: int) -> None:
        self.size, self.seconds = size, []  # type: ignore[var-annotated]
        spec = json.dumps({"trees": trees, "simulations": simulations})
        common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        common |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "TRL_EXPERIMENTAL_SILENCE": "1"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.rollout_worker", spec],
                cwd=_ROOT,
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else _alone(common),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]

    def grow(self) -> float:
        """One rollout; its seconds.

        Raises:
            RuntimeError: a process ended.
        """
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("grow\n")
            process.stdin.flush()
        first = self._processes[0]
        assert first.stdout is not None
        answer = first.stdout.readline()
        if not answer:
            raise RuntimeError(f"a process of {self.size} ended with exit code {first.wait()}")
        return json.loads(answer)["seconds"]

    def close(self) -> None:
        """Let the processes end by themselves; they are killed if they do not."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _alone(environment: dict[str, str]) -> dict[str, str]:
    """Without torch.distributed's variables: a single process is not a group of one."""
    return {name: value for name, value in environment.items() if not name.startswith(("MASTER_", "WORLD_", "LOCAL_"))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _record(session: Session, group: Group, base: Group, trees: int, simulations: int) -> dict[str, Any]:
    times = sorted(group.seconds)
    median = statistics.median(times)
    rate = group.size / base.size
    paired = [rate * one / mine for mine, one in zip(group.seconds, base.seconds)]
    return {
        **session.facts,
        "suite": session.suite,
        "shape": {"processes": group.size, "trees": trees, "simulations": simulations},
        "dtype": "float32",
        "name": f"{group.size} process{'es' if group.size > 1 else ''}",
        "median_ms": 1e3 * median,
        "p20_ms": 1e3 * times[len(times) // 5],
        "p80_ms": 1e3 * times[-1 - len(times) // 5],
        "calls": len(times),
        "trees_per_s": group.size * trees / median,
        "speed_ratio": rate * statistics.median(base.seconds) / median,
        "paired_speed_ratio": statistics.median(paired),
        "peak_extra_bytes": None,
    }
