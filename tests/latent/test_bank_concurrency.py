"""Many searches append at once: nothing lost, nothing torn, ids unique, readers see complete rows."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lapha.geometry import PolarPoints
from lapha.latent import LatentBank

D = 64
THREADS = 64
APPENDS = 100


def labelled(number: int) -> PolarPoints:
    """A latent that says in both parts which one it is: radius n, and a direction whose sign pattern spells n."""
    bits = torch.tensor([1.0 if number >> (i % 24) & 1 else -1.0 for i in range(D)])
    return PolarPoints(bits[None] / D**0.5, torch.tensor([float(number)]))


def assert_complete(points: PolarPoints) -> None:
    """Every row's direction spells its radius."""
    bits = (points.direction[:, :24] > 0).long() << torch.arange(24)
    assert torch.equal(bits.sum(1), points.radius.long())
    assert torch.equal(points.direction[:, 24:48], points.direction[:, :24]), "the row's far end is as old as its near"


@pytest.mark.parametrize("shared_tree", [True, False])
def test_threads_append_and_read_at_once(shared_tree: bool) -> None:
    bank = LatentBank(D, memory_budget=None if shared_tree else 40 * THREADS * (D * 4 + 4))
    stop = threading.Event()

    def write(thread: int) -> dict[int, int]:
        tree = 0 if shared_tree else thread % 40
        numbers = range(thread * APPENDS, (thread + 1) * APPENDS)
        return {int(bank.append(labelled(number), tree)[0]): number for number in numbers}

    def read() -> int:
        seen = 0
        while not stop.is_set():
            size = len(bank)
            if size:
                assert_complete(bank[torch.arange(max(0, size - 50), size)])
                tree = bank.tree_ids[-1]
                assert_complete(bank.segment(tree))
                seen += 1
        return seen

    def move() -> None:
        while not stop.is_set():
            for tree in bank.tree_ids:
                bank.offload(tree)
                bank.load(tree)

    with ThreadPoolExecutor(THREADS + 3) as pool:
        readers = [pool.submit(read), pool.submit(read)]
        mover = pool.submit(move)
        writers = [pool.submit(write, thread) for thread in range(THREADS)]
        try:
            number_of = {}
            for writer in writers:
                found = writer.result()
                assert not number_of.keys() & found.keys(), "ids are unique"
                number_of |= found
        finally:
            stop.set()
        assert all(reader.result() > 0 for reader in readers)
        mover.result()
    assert sorted(number_of) == list(range(THREADS * APPENDS)) == list(range(len(bank)))
    stored = bank[range(len(bank))]
    assert_complete(stored)
    assert stored.radius.long().tolist() == [number_of[index] for index in range(len(bank))]
    assert sum(len(bank.ids(tree)) for tree in bank.tree_ids) == len(bank)


def test_tasks_of_an_event_loop_append_at_once() -> None:
    bank = LatentBank(D)

    async def search(task: int) -> list[tuple[int, int]]:
        found = []
        for step in range(20):
            number = task * 20 + step
            found.append((int(bank.append(labelled(number), task)[0]), number))
            await asyncio.sleep(0)
        return found

    async def run() -> list[list[tuple[int, int]]]:
        return await asyncio.gather(*(search(task) for task in range(50)))

    pairs = [pair for found in asyncio.run(run()) for pair in found]
    assert sorted(index for index, _ in pairs) == list(range(1000))
    for index, number in pairs:
        assert int(bank[index].radius) == number
    assert bank.segment(7).radius.tolist() == [float(7 * 20 + step) for step in range(20)]
