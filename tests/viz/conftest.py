"""A small search tree with every kind of node."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lapha.geometry import PolarPoints
from lapha.tree import SearchTree
from lapha.types import Status
from lapha.viz import TreePicture

HOSTILE = "a < b & c </script><script>document.title='owned'</script><!-- \u2028 \"quoted\" 'too'"


@pytest.fixture
def hostile() -> str:
    """Text of node 4 of `picture` that tries to leave the element it is in."""
    return HOSTILE


@pytest.fixture
def picture() -> TreePicture:
    """Root, open steps, an answered, a correct, an ended and a pruned leaf; the hostile text is in node 4."""
    tree = SearchTree("Which <number>?", [1, 2, 3])
    first = tree.add(0, tokens=[5] * 3, logprobs=[-0.1] * 3, text="STEP-1: first", value=0.2)
    second = tree.add(0, tokens=[6] * 3, logprobs=[-0.2] * 3, text="STEP-1: second", value=0.6)
    tree.add(first, tokens=[7], logprobs=[-0.3], text="wrong", answer="3", status=Status.ANSWERED, value=0.4)
    tree.add(second, tokens=[8], logprobs=[-0.3], text=HOSTILE, answer="<4>", status=Status.ANSWERED, value=0.9)
    tree.add(second, tokens=[9], logprobs=[-0.3], text="too deep", status=Status.DEPTH_LIMIT, value=0.1)
    tree.add(first, tokens=[9], logprobs=[-0.3], text="cut", value=0.1)
    tree.pruned[6] = True
    generator = torch.Generator().manual_seed(0)
    tangent = torch.randn(7, 16, generator=generator) * torch.tensor([0.0, 0.1, 0.1, 0.2, 0.25, 0.2, 0.15])[:, None]
    potential = np.array([0, 0.3, 0.5, 0.4, 1.0, 0.6, 0.2])
    correct = np.arange(7) == 4
    return TreePicture(
        tree, PolarPoints.from_tangent(tangent), potential=potential, correct=correct, chosen=4, title="T <i>itle</i>"
    )
