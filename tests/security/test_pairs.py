"""The table of channels: every pair of programs, in two branches at the same time."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lapha.sandbox import BubblewrapSandbox, Limits
from sandbox.availability import need_bubblewrap

from .canaries import Canaries
from .pairs import all_pairs

PAIRS = {pair.channel: pair for pair in all_pairs()}
LIMITS = Limits(wall_seconds=4.0, cpu_seconds=2.0, memory_bytes=192 << 20, output_bytes=20_000, file_bytes=2 << 20)
AT_ONCE = 6
TRIES = 4


async def run_pair(sandbox, pair, canaries):
    """Both results, of runs that overlapped in time."""
    for _ in range(TRIES):
        roots = [sandbox.open()] if pair.before else [sandbox.open(), sandbox.open()]
        if pair.before:
            await roots[0].run(canaries.fill(pair.before))
        branches = [roots[0].fork(), roots[-1].fork()]
        both = [canaries.fill(program) for program in pair.programs()]
        results = await asyncio.gather(*(branch.run(code) for branch, code in zip(branches, both)))
        for session in (*roots, *branches):
            session.close()
        if overlap(*results):
            break
    return results


def times(result):
    """When a program began and ended, or None where it did not come so far."""
    found = [line.split()[1] for line in result.output.splitlines() if line.startswith(("BEGAN", "ENDED"))]
    return [float(time) for time in found] if len(found) == 2 else None


def overlap(left, right):
    """Whether both had most of their time together; one that was refused needs none."""
    left, right = times(left), times(right)
    if left is None or right is None:
        return True
    together = min(left[1], right[1]) - max(left[0], right[0])
    return together > 0.5 * max(left[1] - left[0], right[1] - right[0]) or right[1] - right[0] < 0.1


class Tried:
    """What came of all pairs."""

    def __init__(self, folder: Path) -> None:
        self.canaries = Canaries(folder)
        try:
            with BubblewrapSandbox(LIMITS, concurrency=2 * AT_ONCE, packages=(), preload=()) as sandbox:
                self.found = asyncio.run(self._all(sandbox))
                self.described = sandbox.describe()
            self.harm = self.canaries.harm()
        finally:
            self.canaries.close()

    async def _all(self, sandbox):
        gate, found = asyncio.Semaphore(AT_ONCE), {}

        async def one(pair):
            async with gate:
                found[pair.channel] = await run_pair(sandbox, pair, self.canaries)

        await asyncio.gather(*map(one, PAIRS.values()))
        return found


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    need_bubblewrap()
    return Tried(tmp_path_factory.mktemp("pairs"))


@pytest.mark.parametrize("channel", PAIRS)
def test_nothing_passes(channel, tried):
    left, right = tried.found[channel]
    assert "ESCAPED" not in left.output + right.output
    assert overlap(left, right), "they were not run at the same time"
    assert {left.outcome, right.outcome} <= {"ok", "error", "files", "crashed", "cpu", "timeout", "memory"}
    assert max(left.seconds, right.seconds) <= LIMITS.wall_seconds + 1


def test_pairs_harm_nothing(tried):
    assert tried.harm == []
    assert tried.described["restarts"] == 0
    assert tried.described["processes"] == 1


CONTROLS = [channel for channel, pair in PAIRS.items() if pair.control]


@pytest.fixture(scope="module")
def unconfined(tmp_path_factory):
    canaries = Canaries(tmp_path_factory.mktemp("pairs-outside"))
    try:
        pairs = {channel: [*map(canaries.fill, PAIRS[channel].programs())] for channel in CONTROLS}
        for channel, programs in pairs.items():
            programs.append(canaries.fill(PAIRS[channel].before))
        script = Path(__file__).with_name("unconfined.py")
        done = subprocess.run(
            [sys.executable, str(script), "pairs"],
            input=json.dumps(pairs),
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
        return json.loads(done.stdout)
    finally:
        canaries.close()


@pytest.mark.parametrize("channel", CONTROLS)
def test_the_channel_is_open_outside(channel, unconfined):
    assert "ESCAPED" in unconfined[channel]


def test_the_table_is_large_enough():
    assert len(PAIRS) == sum(Counter(pair.channel for pair in all_pairs()).values()) >= 60
    assert len(CONTROLS) >= 40
