"""Search: own time a node, throughput over many trees against the ideal, memory a node.

All over the scripted engine, whose samples cost next to nothing, so that what is left is the search itself.

* own: one tree of 128 simulations × 6 children (769 nodes), H = 1536, with and without pruning every 24 simulations.
  Own time is everything but the calls of the engine and the evaluator, per node, in processor time and on the clock.
* throughput: an engine with 50 ms latency and room for 256 continuations can make 5,120 nodes a second, no more.
  1,000 trees share it; the share of that ceiling counts from the first request to the last result.
* memory: Python memory held for each node of a tree in the middle of its search, beside token ids and latents.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
import tracemalloc
from typing import Any

from benchmarks.harness import Session
from benchmarks.records import write_records
from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig
from lapha.tree import SearchTree
from lapha.types import Evaluation, Sample, SampleRequest, State

_HIDDEN = 1536
# (trees measured for own time, trees in the throughput case, simulations of each)
_SIZES = {"smoke": (1, 20, 2), "default": (10, 1000, 12)}
_BREADTH = 4  # 256 continuations are 64 requests: with 6 children 4 places would stay empty


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrency", type=int, default=192, help="trees in flight in the throughput case (192)")


def run(args: argparse.Namespace, session: Session) -> None:
    own_trees, trees, simulations = _SIZES[args.sizes]
    for selection in ("frontier", "puct"):
        for prune_every in (0, 24):
            _report(session, _own_time(selection, prune_every, own_trees))
    _report(session, _throughput(trees, simulations, args.concurrency))
    _report(session, _memory())


class _Timed:
    """The engine, with a stopwatch around its calls."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine, self.environment = engine, engine.environment
        self.clock = self.processor = 0.0

    async def sample(self, request: SampleRequest) -> list[Sample]:
        began = time.perf_counter(), time.process_time()
        samples = await self.engine.sample(request)
        self._add(began)
        return samples

    async def evaluate(self, states: list[State]) -> list[Evaluation]:
        began = time.perf_counter(), time.process_time()
        evaluations = await self.engine.evaluate(states)
        self._add(began)
        return evaluations

    def _add(self, began: tuple[float, float]) -> None:
        self.clock += time.perf_counter() - began[0]
        self.processor += time.process_time() - began[1]


def _own_time(selection: str, prune_every: int, trees: int) -> dict[str, Any]:
    engine = _Timed(ScriptedEngine(hidden_size=_HIDDEN))
    search = Search(
        engine, config=SearchConfig(simulations=128, breadth=6, selection=selection, prune_every=prune_every)
    )
    list(search.run(["warm up"]))
    clock, processor = [], []
    for index in range(trees):
        engine.clock = engine.processor = 0.0
        began = time.perf_counter(), time.process_time()
        [result] = search.run([f"question {index}"])
        clock.append(1e3 * (time.perf_counter() - began[0] - engine.clock) / len(result.tree))
        processor.append(1e3 * (time.process_time() - began[1] - engine.processor) / len(result.tree))
    return {
        "name": f"own time a node, {selection}, " + (f"pruning every {prune_every}" if prune_every else "no pruning"),
        "shape": {"nodes": len(result.tree), "H": _HIDDEN},
        "median_ms": statistics.median(clock),
        "p20_ms": sorted(clock)[len(clock) // 5],
        "p80_ms": sorted(clock)[-1 - len(clock) // 5],
        "processor_ms": statistics.median(processor),
        "calls": trees,
    }


def _throughput(trees: int, simulations: int, concurrency: int) -> dict[str, Any]:
    latency, capacity = 0.05, 256
    engine = ScriptedEngine(latency=latency, capacity=capacity)
    # every tree has as many nodes as its settings say: none runs out of open nodes
    config = SearchConfig(simulations=simulations, breadth=_BREADTH, max_expands=simulations)
    search = Search(engine, config=config)

    async def count() -> int:
        questions = [f"question {index}" for index in range(trees)]
        return sum([len(result.tree) - 1 async for result in search.arun(questions, concurrency=concurrency)])

    gc.collect()
    began = time.perf_counter(), time.process_time()
    nodes = asyncio.run(count())
    seconds, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    ideal = capacity / latency
    return {
        "name": "throughput",
        "shape": {"trees": trees, "nodes": nodes},
        "median_ms": 1e3 * seconds,
        "p20_ms": 1e3 * seconds,
        "p80_ms": 1e3 * seconds,
        "calls": 1,
        "nodes_per_s": nodes / seconds,
        "share_of_ideal": nodes / seconds / ideal,
        "processor_ms": 1e3 * processor,
        "policy_idle_s": search.meter.policy_idle_s,
        "concurrency": concurrency,
    }


def _memory() -> dict[str, Any]:
    """Traced while the tree is alive, just before its last simulation."""
    simulations, found = 128, {}

    def stop(tree: SearchTree) -> bool:
        if int(tree.simulation[-1]) == simulations - 1:
            gc.collect()
            found["held"] = tracemalloc.get_traced_memory()[0]
            found["tokens"] = sum(sys.getsizeof(tokens) for tokens in tree.tokens)
            found["nodes"] = len(tree)
        return False

    search = Search(ScriptedEngine(hidden_size=8), config=SearchConfig(simulations=simulations), stop=stop)
    list(search.run(["warm up"]))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    began = time.perf_counter()
    [result] = search.run(["question"])
    traced_ms = 1e3 * (time.perf_counter() - began)
    tracemalloc.stop()
    bytes_a_node = (found["held"] - before - found["tokens"]) / found["nodes"]
    return {
        "name": "memory a live node",
        "shape": {"nodes": len(result.tree), "H": 8},
        "median_ms": traced_ms,  # of the search with memory tracing on
        "p20_ms": traced_ms,
        "p80_ms": traced_ms,
        "calls": 1,
        "bytes_per_node": bytes_a_node,
    }


def _report(session: Session, measured: dict[str, Any]) -> None:
    record = {**session.facts, "suite": session.suite, "dtype": "float32", "peak_extra_bytes": None, **measured}
    extra = ("processor_ms", "nodes_per_s", "share_of_ideal", "bytes_per_node")
    facts = "  ".join(f"{name} {record[name]:.4g}" for name in extra if name in record)
    print(f"{record['name']:<48} {record['median_ms']:10.3f} ms  {facts}", flush=True)
    write_records([record], session.output)
    session.records.append(record)
