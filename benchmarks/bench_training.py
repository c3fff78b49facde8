"""Training: tokens a second and peak memory of a step, against the reference's form and against stock GRPO.

One case: 8 sibling groups of 6 rows that share their group's prompt, the same random model and rows for everyone.

* lapha: `LaPhaTrainer` with the value loss over every state of each row's path.
* shared: the same, with the prompt that a group's rows share computed once; also without the value loss.
* grpo: TRL's `GRPOTrainer` on the same rows, without a value loss: lapha against it is what the value loss costs.
* reference: the form of the paper's code. One sequence at a time, all hidden states kept, the log-softmax over the whole
  vocabulary at every position, one backward pass over all sequences at the end; value loss on each row's own state.

Every contestant lives in a process of its own; they take turns step by step. Peak memory is what a process held at most
beyond its libraries (the allocator's peak on CUDA): model, optimiser and step together.
On CPU the model has 4.9 M parameters, on CUDA the shape of Qwen2.5-0.5B in bfloat16 mixed precision.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Session
from benchmarks.records import write_records
from benchmarks.training_data import FIVE_MILLION, HALF_BILLION, SMOKE, count_tokens, make_rows
from benchmarks.training_steps import KINDS

_ROOT = Path(__file__).parents[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--micro-groups", type=int, default=1, help="sibling groups of one pass of the trainers (1)")
    parser.add_argument("--contestants", nargs="+", choices=KINDS, default=KINDS, help="who takes part (all of them)")
    parser.add_argument("--beta", type=float, default=None, help="KL coefficient; 0 leaves the reference model out")


def run(args: argparse.Namespace, session: Session) -> None:
    default = HALF_BILLION if session.device.type == "cuda" else FIVE_MILLION
    case = SMOKE if args.sizes == "smoke" else default
    case = dataclasses.replace(case, device=str(session.device))
    if args.beta is not None:
        case = dataclasses.replace(case, beta=args.beta)
    rows = make_rows(case, tokens=64)
    shape = {"tokens": count_tokens(rows), "rows": len(rows), "H": case.hidden, "V": case.vocabulary}
    print(f"{session.suite} " + " ".join(f"{name}={size}" for name, size in shape.items()), flush=True)
    workers = [Worker(kind, case, args.micro_groups) for kind in args.contestants]
    try:
        for worker in workers:
            worker.step()  # compiles, tunes, allocates; counts for the peak alone
        for _ in range(session.repeats):
            for worker in workers:
                if sum(worker.seconds) < session.seconds or len(worker.seconds) < 3:
                    worker.seconds.append(worker.step())
    finally:
        for worker in workers:
            worker.close()
    for record in _records(session, case, shape, workers):
        print(f"  {record['name']:<22} {_line(record)}", flush=True)
        write_records([record], session.output)
        session.records.append(record)


class Worker:
    """One contestant's process."""

    def __init__(self, kind: str, case: Any, micro_groups: int) -> None:
        self.kind, self.seconds, self.peak, self.loss = kind, [], None, float("nan")  # type: ignore[var-annotated]
        spec = {"kind": kind, "case": case.to_dict(), "micro_groups": micro_groups, "threads": torch.get_num_threads()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.training_worker", json.dumps(spec)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self) -> float:
        """Take one step; its seconds.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"contestant {self.kind!r} ended with exit code {self._process.wait()}")
        found = json.loads(answer)
        self.peak, self.loss = found["peak_bytes"], found["loss"]
        return found["seconds"]

    def close(self) -> None:
        """Let the process end by itself; it is killed if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _records(session: Session, case: Any, shape: dict[str, int], workers: list[Worker]) -> list[dict[str, Any]]:
    records = []
    for worker in workers:
        times = sorted(worker.seconds)
        median = statistics.median(times)
        record: dict[str, Any] = {
            **session.facts,
            "suite": session.suite,
            "shape": shape,
            "dtype": "bf16" if getattr(case, "bf16", False) else "float32",
            "name": worker.kind,
            "case": case.to_dict(),
            "median_ms": 1e3 * median,
            "p20_ms": 1e3 * times[len(times) // 5],
            "p80_ms": 1e3 * times[-1 - len(times) // 5],
            "calls": len(times),
            "tokens_per_s": shape["tokens"] / median,
            "peak_extra_bytes": worker.peak,
            "loss": worker.loss,
        }
        for other in workers:
            if other is not worker:
                ratio = {
                    "time_ratio": median / statistics.median(other.seconds),
                    "paired_time_ratio": statistics.median(a / b for a, b in zip(worker.seconds, other.seconds)),
                }
                if worker.peak is not None and other.peak:
                    ratio["memory_ratio"] = worker.peak / other.peak
                record.setdefault("against", {})[other.kind] = ratio
        records.append(record)
    return records


def _line(record: dict[str, Any]) -> str:
    text = f"{record['median_ms']:10.1f} ms  {record['tokens_per_s']:10.0f} token/s"
    if record["peak_extra_bytes"] is not None:
        text += f"  {record['peak_extra_bytes'] / 1e6:8.0f} MB"
    for name, ratio in record.get("against", {}).items():
        text += f"  {ratio['time_ratio']:.3f} × {name}"
        text += f" ({ratio['memory_ratio']:.3f} × memory)" if "memory_ratio" in ratio else ""
    return text
