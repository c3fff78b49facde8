"""Appending to the latent bank: one latent of dimension D to a bank of N, against a copy into a ready buffer.

A timed call appends 1000 latents one by one, so that the clock's own cost vanishes: milliseconds a call are microseconds
an append. The ceiling copies the same rows into a buffer that is large enough, and does nothing else. Beside it: the plain
way, which concatenates its bank again after every append (one append a call). The bank grows to each size by single
appends, and their mean and quantiles over the whole way are in the record: growth is part of the price. A last case has
64 threads append 100,000 latents and checks that none is lost or torn and that ids are unique.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Case, Contestant, Session, Skipped
from lapha.geometry import PolarPoints
from lapha.latent import LatentBank

_SIZES = {"smoke": ([100, 1000], 32, 2000), "default": ([1000, 10_000, 100_000, 1_000_000], 1536, 100_000)}
_PER_CALL = 1000
_THREADS = 64
# Concatenating needs the bank twice.
_CONCATENATE_UP_TO = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of directions (bfloat16)")
    parser.add_argument("--largest", type=int, help="leave out larger banks (1,000,000 × 1536 in bfloat16 are 3 GB)")


def run(args: argparse.Namespace, session: Session) -> None:
    sizes, dim, threaded = _SIZES[args.sizes]
    dtype = getattr(torch, args.dtype)
    rows = PolarPoints.from_tangent(torch.randn(_PER_CALL, dim, generator=torch.Generator().manual_seed(0)))
    rows = rows.to(session.device)
    singles = [rows[index : index + 1] for index in range(_PER_CALL)]
    bank = LatentBank(dim, device=session.device, dtype=dtype)
    for size in sizes:
        if args.largest is None or size <= args.largest:
            labels = _grow(bank, singles, size)
            entries = [_ceiling(bank, rows), _ours(bank, singles, labels), _concatenating(bank, singles[0], size)]
            session.measure(Case({"N": size, "D": dim}, args.dtype, entries))
    del bank
    session.measure(Case({"N": threaded, "D": dim}, args.dtype, [_threads(dim, dtype, threaded, session.device)]))


def _grow(bank: LatentBank, singles: list[PolarPoints], size: int) -> dict[str, Any]:
    """Append one by one until the bank holds `size`; what that took, in microseconds an append."""
    times = np.empty(max(0, size - len(bank)))
    for index in range(len(times)):
        start = time.perf_counter()
        bank.append(singles[index % _PER_CALL])
        times[index] = time.perf_counter() - start
    if not len(times):
        return {}
    middle, high = np.quantile(times, (0.5, 0.99))
    return {"grow_mean_us": 1e6 * times.mean(), "grow_p50_us": 1e6 * middle, "grow_p99_us": 1e6 * high}


def _ceiling(bank: LatentBank, rows: PolarPoints) -> Contestant:
    direction = torch.zeros(_PER_CALL, bank.dim, dtype=bank.dtype, device=bank.device)
    radius = torch.zeros(_PER_CALL, device=bank.device)

    def copy() -> None:
        for index in range(_PER_CALL):
            direction[index].copy_(rows.direction[index])
            radius[index].copy_(rows.radius[index])

    return Contestant("copy into a ready buffer", copy, ceiling=True, labels={"appends": _PER_CALL})


def _ours(bank: LatentBank, singles: list[PolarPoints], labels: dict[str, Any]) -> Contestant:
    def append() -> None:
        for row in singles:
            bank.append(row)

    return Contestant("lapha bank", append, labels={"appends": _PER_CALL, **labels})


def _concatenating(bank: LatentBank, row: PolarPoints, size: int) -> Contestant | Skipped:
    name = "concatenate after every append"
    if size > _CONCATENATE_UP_TO:
        return Skipped(name, "needs the bank twice")
    state = [torch.zeros(size, bank.dim, dtype=bank.dtype, device=bank.device)]
    new = row.direction.to(bank.dtype)

    def append() -> None:
        state[0] = torch.cat([state[0], new])

    return Contestant(name, append, labels={"appends": 1})


def _threads(dim: int, dtype: torch.dtype, count: int, device: torch.device) -> Contestant:
    """Row i has radius i, and a direction along axis i mod D: a torn row would show."""
    each = -(-count // _THREADS)

    def append_all() -> None:
        bank = LatentBank(dim, device=device, dtype=dtype)

        def worker(thread: int) -> list[int]:
            ids = []
            for number in range(thread * each, min(count, (thread + 1) * each)):
                direction = torch.zeros(1, dim, device=device)
                direction[0, number % dim] = 1
                radius = torch.full((1,), float(number), device=device)
                ids.append(int(bank.append(PolarPoints(direction, radius))[0]))
            return ids

        with ThreadPoolExecutor(_THREADS) as pool:
            ids = [index for found in pool.map(worker, range(_THREADS)) for index in found]
        stored = bank.segment(0)
        numbers = stored.radius.long()
        torn = int((stored.direction.argmax(dim=1) != numbers % dim).sum())
        complete = bool((numbers.sort().values == torch.arange(count, device=device)).all())
        if sorted(ids) != list(range(count)) or torn or not complete:
            raise AssertionError(
                f"expected {count} whole rows with unique ids, got {len(set(ids))} ids and {torn} torn"
            )

    return Contestant(f"{_THREADS} threads, nothing lost", append_all, labels={"appends": count})
