"""Many branches and many runs, at a tenth and less of the benchmark's size (`python -m benchmarks sandbox`)."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks import bench_sandbox as bench
from benchmarks.sandbox_soak import PROGRAMS, soak
from lapha.sandbox import BubblewrapSandbox

from .availability import need_bubblewrap

pytestmark = pytest.mark.slow


def test_a_soak_through_the_server_meets_only_the_codes_own_errors_and_leaves_nothing():
    need_bubblewrap()
    record = soak(lambda: BubblewrapSandbox(bench._LIMITS, concurrency=8, live=32), 320)
    assert sum(record["outcomes"].values()) == 320
    assert set(record["outcomes"]) == set(PROGRAMS)
    assert (record["unexpected"], record["sandbox_errors"]) == ([], [])
    assert record["left_while_serving"]["states"] == record["left_while_serving"]["processes"] == 0
    assert record["left_while_serving"]["open_files"] <= 4, record  # an idle connection more or less, not one a run
    assert all(left <= 0 for left in record["left_behind"].values()), record


@pytest.mark.anyio
async def test_a_hundred_live_branches_are_independent_and_small():
    need_bubblewrap()
    count = 100
    with BubblewrapSandbox(bench._LIMITS, concurrency=8, live=count + 1) as sandbox:
        root = sandbox.open()
        await root.run("import sympy as sp\na = sp.Symbol('a')")
        before = bench._proportional_bytes(sandbox.supervisor_pid)
        begin = time.perf_counter()
        branches = [root.fork() for _ in range(count)]
        await asyncio.gather(*(branch.run(f"mine = a + {i}") for i, branch in enumerate(branches)))
        grown = time.perf_counter() - begin
        assert sandbox.describe()["processes"] == count + 2
        assert bench._proportional_bytes(sandbox.supervisor_pid) - before < count * 4e6
        results = await asyncio.gather(*(branch.run("mine - a") for branch in branches))
        assert [result.value for result in results] == [str(i) for i in range(count)]
        assert (await root.run("'mine' in globals()")).value == "False"
        assert grown < 60
