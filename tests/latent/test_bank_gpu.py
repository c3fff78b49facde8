"""The bank on a CUDA device: pinned mirror, asynchronous copies, tiers, and threads on streams of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from lapha.geometry import PolarPoints, pairwise_dist
from lapha.latent import LatentBank

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
D = 256


def random_points(size: int, seed: int = 0, device: str = "cuda") -> PolarPoints:
    generator = torch.Generator().manual_seed(seed)
    return PolarPoints.from_tangent(torch.randn(size, D, generator=generator)).to(device)


def equal(a: PolarPoints, b: PolarPoints) -> bool:
    return torch.equal(a.direction.cpu(), b.direction.cpu()) and torch.equal(a.radius.cpu(), b.radius.cpu())


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("source", ["cuda", "cpu"])
def test_offloaded_and_loaded_rows_are_those_appended(mirror: bool, source: str) -> None:
    points = random_points(3000, device=source)
    bank = LatentBank(D, device="cuda", mirror=mirror)
    for start in range(0, 3000, 50):
        bank.append(points[start : start + 50], start // 50 % 3)
    whole = bank[range(3000)]
    assert whole.device == bank.device
    assert equal(whole, points)
    view = bank.segment(0)
    before = torch.cuda.memory_allocated()
    bank.offload()
    assert bank.device_bytes == 0
    assert equal(bank[range(3000)], points)
    assert bank.segment(1, 100, 200).device == bank.device
    assert equal(view, bank.segment(0)), "a view outlives offloading"
    del view, whole
    assert torch.cuda.memory_allocated() < before
    bank.append(points[:10], 1)
    bank.load()
    assert equal(bank.segment(1)[-10:], points[:10])


def test_the_budget_bounds_device_memory() -> None:
    row = D * 4 + 4
    bank = LatentBank(D, device="cuda", memory_budget=2000 * row)
    points = random_points(8000)
    for tree in range(8):
        bank.append(points[tree * 1000 : (tree + 1) * 1000], tree)
        assert bank.device_bytes <= 2000 * row
    assert bank.is_offloaded(0)
    assert equal(bank[range(8000)], points)
    distance, found = bank.nearest(range(50), range(4000, 8000))
    exact = pairwise_dist(points[:50], points[4000:])
    torch.testing.assert_close(distance, exact.min(1).values.to(distance.dtype), rtol=1e-4, atol=1e-5)
    assert (found.cpu() == 4000 + exact.argmin(1).cpu()).float().mean() > 0.95  # near ties may go either way


@pytest.mark.parametrize("mirror", [False, True])
def test_threads_on_streams_of_their_own_see_complete_rows(mirror: bool) -> None:
    bank = LatentBank(D, device="cuda", mirror=mirror)

    def worker(thread: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for step in range(100):
                number = thread * 100 + step
                direction = torch.full((1, D), D**-0.5, device="cuda")
                row = PolarPoints(direction, torch.full((1,), float(number), device="cuda"))
                index = int(bank.append(row, thread % 4)[0])
                found = bank[index]
                assert float(found.radius) == number
                assert float(found.direction.sum()) == pytest.approx(D**0.5, rel=1e-4)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(worker, range(32)))
    assert sorted(bank[range(3200)].radius.long().tolist()) == list(range(3200))
    bank.offload()
    assert sorted(bank[range(3200)].radius.long().tolist()) == list(range(3200))


def test_a_bank_moves_between_devices_by_file(tmp_path: Path) -> None:
    points = random_points(100)
    bank = LatentBank(D, device="cuda", dtype=torch.bfloat16)
    bank.append(points)
    bank.save(tmp_path / "bank")
    again = LatentBank.from_file(tmp_path / "bank", device="cpu")
    assert equal(again.segment(0), bank.segment(0))
