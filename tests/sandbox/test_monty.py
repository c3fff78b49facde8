"""What only the monty back end can get wrong: states that it holds in this process."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from lapha.sandbox import Limits, MontySandbox, SandboxError

pytestmark = pytest.mark.anyio
LIMITS = Limits(wall_seconds=2.0, cpu_seconds=2.0)


@pytest.fixture
def no_collector():
    """Memory must come back by itself, and threads change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    sys.setswitchinterval(interval)


async def test_who_has_the_answer_and_lets_go_has_freed_the_state(no_collector):
    with MontySandbox(LIMITS, concurrency=1) as sandbox:
        for _ in range(200):
            assert (await sandbox.open().run("1")).ok
            assert sandbox.describe()["state_bytes"] == 0


async def test_a_state_does_not_hold_those_of_forks_that_waited_for_it(no_collector):
    with MontySandbox(LIMITS, concurrency=1) as sandbox:
        parent = sandbox.open()
        running = asyncio.create_task(parent.run("x = 0\nfor i in range(200_000): x += i"))
        await asyncio.sleep(0)
        child = parent.fork()
        assert (await child.run("y = 'a' * 10_000")).ok  # it waited for the parent's run
        await running
        both = sandbox.describe()["state_bytes"]
        child.close()
        alone = sandbox.describe()["state_bytes"]
        assert 0 < alone < both - 10_000
        parent.close()
        assert sandbox.describe()["state_bytes"] == 0


async def test_closing_ends_the_runs_that_still_wait_for_a_worker():
    sandbox = MontySandbox(Limits(wall_seconds=0.5, cpu_seconds=0.5), concurrency=1)
    running = [asyncio.create_task(sandbox.open().run("while True: pass")) for _ in range(8)]
    await asyncio.sleep(0)
    await asyncio.to_thread(sandbox.close)
    last = (await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 30))[-1]
    assert (type(last), str(last)) == (SandboxError, "the sandbox is closed")
