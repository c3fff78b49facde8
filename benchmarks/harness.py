"""Measuring: contestants of a case take turns, and one of them is the ceiling that the others are measured against."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import PeakMemory
from benchmarks.records import write_records

# A contestant slower than this in its first call is measured by that call alone.
_SLOW_SECONDS = 60.0
_LEAST_REPEATS = 3


@dataclass(frozen=True)
class Contestant:
    """One way to compute what a case asks for.

    Attributes:
        name: short, the same in every case.
        run: does the work once and returns the result; everything it needs is prepared outside.
        error: result → largest relative error against float64, or None if there is nothing to compare.
        result_bytes: size of what `run` returns; the peak memory beyond it is reported as extra.
        flops: floating point operations of the inner products, for TFLOP/s; 0 leaves that out.
        moved_bytes: bytes that must be read and written at least, for GB/s; 0 leaves that out.
        ceiling: whether the others' times are put in relation to this one's.
        labels: more facts for the record, such as the precision.
    """

    name: str
    run: Callable[[], Any]
    error: Callable[[Any], float] | None = None
    result_bytes: int = 0
    flops: float = 0.0
    moved_bytes: float = 0.0
    ceiling: bool = False
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A contestant that cannot run in a case, and why: it is reported, not left out in silence."""

    name: str
    reason: str


@dataclass(frozen=True)
class Case:
    """One shape and dtype.

    Attributes:
        shape: names and sizes, such as {"N": 4096, "M": 4096, "D": 1536}; the first is the plot's x axis.
        dtype: of the input, as text.
        contestants: in the order of the table.
    """

    shape: dict[str, int]
    dtype: str
    contestants: Sequence[Contestant | Skipped]


class Session:
    """Measures cases, prints a line for each result, and appends it to the result file at once."""

    def __init__(
        self,
        suite: str,
        device: torch.device,
        repeats: int,
        seconds: float,
        only: str,
        output: Path,
        facts: dict[str, Any],
    ) -> None:
        if repeats < 1 or not seconds > 0:
            raise ValueError(f"repeats, seconds: expected >= 1 and > 0, got {repeats} and {seconds}")
        self.suite, self.device, self.repeats, self.seconds = suite, device, repeats, seconds
        self.only, self.output, self.facts = only, output, facts
        self.records: list[dict[str, Any]] = []

    def measure(self, case: Case) -> list[dict[str, Any]]:
        """Measure every contestant of `case`; returns their records."""
        print(f"{self.suite} {_shape_text(case.shape)} {case.dtype}", flush=True)
        skipped = [entry for entry in case.contestants if isinstance(entry, Skipped)]
        running: list[tuple[Contestant, dict[str, Any]]] = []
        for entry in case.contestants:
            if isinstance(entry, Contestant) and (entry.ceiling or self.only in entry.name):
                first = self._first_call(entry)
                if isinstance(first, Skipped):
                    skipped.append(first)
                else:
                    running.append((entry, first))
        self._take_turns(running)
        records = self._records(case, running)
        records += [{**self._about(case), "name": entry.name, "skipped": entry.reason} for entry in skipped]
        for record in records:
            print("  " + _line(record), flush=True)
        write_records(records, self.output)
        self.records += records
        return records

    def _first_call(self, contestant: Contestant) -> dict[str, Any] | Skipped:
        """Warm up (compilation, autotuning), take the error, and see how long a call takes and what it allocates."""
        try:
            result = contestant.run()
            error = None if contestant.error is None else contestant.error(result)
            del result
            with PeakMemory(self.device) as peak:
                start = time.perf_counter()
                result = contestant.run()
                self._synchronize()
                once = time.perf_counter() - start
            del result
        except (torch.OutOfMemoryError, MemoryError) as failure:
            return Skipped(contestant.name, f"out of memory: {str(failure).splitlines()[0]}")
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        extra = None if peak.bytes is None else max(0, peak.bytes - contestant.result_bytes)
        return {"error": error, "once": once, "peak_extra_bytes": extra, "times": []}

    def _take_turns(self, running: Sequence[tuple[Contestant, dict[str, Any]]]) -> None:
        """Timed calls, round after round: a slow minute of the machine then hits all contestants alike."""
        for round_ in range(self.repeats):
            for contestant, state in running:
                times = state["times"]
                if round_ >= 1 and state["once"] > _SLOW_SECONDS:
                    continue
                if round_ >= _LEAST_REPEATS and sum(times) > self.seconds:
                    continue
                times.append(self._time(contestant.run))

    def _time(self, run: Callable[[], Any]) -> float:
        """Seconds of one call, by device events on CUDA."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        start_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        start_event.record()
        run()
        end_event.record()
        torch.cuda.synchronize(self.device)
        return start_event.elapsed_time(end_event) / 1e3

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _about(self, case: Case) -> dict[str, Any]:
        return {**self.facts, "suite": self.suite, "shape": case.shape, "dtype": case.dtype}

    def _records(self, case: Case, running: Sequence[tuple[Contestant, dict[str, Any]]]) -> list[dict[str, Any]]:
        ceilings = [(entry, state) for entry, state in running if entry.ceiling]
        records = []
        for contestant, state in running:
            times = state["times"]
            median = statistics.median(times)
            record = {
                **self._about(case),
                "name": contestant.name,
                **contestant.labels,
                "median_ms": 1e3 * median,
                "p20_ms": 1e3 * _quantile(times, 0.2),
                "p80_ms": 1e3 * _quantile(times, 0.8),
                "calls": len(times),
                "peak_extra_bytes": state["peak_extra_bytes"],
            }
            if contestant.flops:
                record["tflops"] = contestant.flops / median / 1e12
            if contestant.moved_bytes:
                record["gbytes_per_s"] = contestant.moved_bytes / median / 1e9
            if state["error"] is not None:
                finite = math.isfinite(state["error"])
                record["relative_error"] = state["error"] if finite else str(state["error"])
            if contestant.ceiling:
                record["is_ceiling"] = True
            for ceiling, ceiling_state in ceilings:
                if ceiling is not contestant:
                    record.setdefault("against", {})[ceiling.name] = _against(contestant, times, ceiling, ceiling_state)
            records.append(record)
        return records


def _against(
    contestant: Contestant, times: Sequence[float], ceiling: Contestant, state: dict[str, Any]
) -> dict[str, float]:
    """Time as a multiple of the ceiling's, and the share of its rate that is reached."""
    rounds = list(zip(times, state["times"]))
    result = {
        "time_ratio": statistics.median(times) / statistics.median(state["times"]),
        # of calls side by side: less moved by what else the machine was doing
        "paired_time_ratio": statistics.median(mine / theirs for mine, theirs in rounds),
    }
    work, most = (contestant.flops, ceiling.flops) if ceiling.flops else (contestant.moved_bytes, ceiling.moved_bytes)
    if work and most:
        result["share"] = work / most / result["time_ratio"]
    return result


def _quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    position = part * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def _shape_text(shape: dict[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in shape.items())


def _line(record: dict[str, Any]) -> str:
    if "skipped" in record:
        return f"{record['name']:<34} skipped: {record['skipped']}"
    text = f"{record['name']:<34} {record['median_ms']:10.3f} ms"
    for name, ratio in record.get("against", {}).items():
        text += f"  {ratio['time_ratio']:.2f} × {name}"
    return text
