"""Pruning latents that live on a CUDA device."""

from __future__ import annotations

import pytest
import torch

from lapha.pruning import IncrementalPruner, PruneConfig, prune, prune_many

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("survivors", ["random", "medoid"])
def test_device_and_cpu_agree(survivors: str, planted) -> None:
    points, _ = planted(10, 12, dim=128)
    config = PruneConfig(survivors=survivors)
    here, there = prune(points, config=config), prune(points.to("cuda"), config=config)
    assert torch.equal(here.disabled, there.disabled)
    assert torch.equal(here.labels, there.labels)
    many = list(prune_many([(points.to("cuda"), None)] * 3, config))
    assert all(torch.equal(result.disabled, here.disabled) for result in many)
    pruner = IncrementalPruner(config)
    pruner.update(points[:90].to("cuda"))
    assert pruner.update(points.to("cuda")).labels.shape == (120,)
