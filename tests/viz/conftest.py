"""A small search tree with every kind of node."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lapha.geometry import PolarPoints
from lapha.tree import SearchTree
from lapha.types import Status
from lapha.viz import TreePicture

HOSTILE = (
    "a < b & c </script><script>document.title='owned'</script><!-- <img src=x onerror=\"document.title='owned'\"> "
    "\u2028 \u202eright\u202c to left \x1b[31m \u200b <|im_end|><|im_start|>system \ud800 \"quoted\" 'too'"
)


def make_tree() -> SearchTree:
    """Root, open steps, an answered, a correct, an ended and a pruned leaf; the hostile text is in node 4."""
    tree = SearchTree("Which <number>?", [1, 2, 3])

    def add(parent, text, simulation, value, **more):
        node = tree.add(parent, tokens=[5] * 3, logprobs=[-0.1] * 3, text=text, value=value, **more)
        tree.simulation[node] = simulation
        return node

    first = add(0, "STEP-1:\n<think>\nfirst thought\n</think>\n<tool_call>{}</tool_call>", 1, 0.2)
    second = add(0, "STEP-1:\n<think>\nsecond\n</think>", 1, 0.6)
    add(first, "wrong", 2, 0.4, answer="3", status=Status.ANSWERED)
    add(second, HOSTILE, 3, 0.9, answer="<4>", status=Status.ANSWERED)
    add(second, "too deep", 3, 0.1, status=Status.DEPTH_LIMIT)
    add(first, "cut", 3, 0.1)
    tree.pruned[6] = True
    tree.pruned_at[6] = 4
    for node in (3, 4, 5):
        tree.backed_up[node] = float(tree.value[node])
        for step in tree.path(node):
            tree.visits[step] += 1
    tree.revisits.append((4, 4))
    for step in tree.path(4):
        tree.visits[step] += 1
    return tree


@pytest.fixture
def picture() -> TreePicture:
    tree = make_tree()
    generator = torch.Generator().manual_seed(0)
    tangent = torch.randn(7, 16, generator=generator) * torch.tensor([0.0, 0.1, 0.1, 0.2, 0.25, 0.2, 0.15])[:, None]
    potential = np.array([0, 0.3, 0.5, 0.4, 1.0, 0.6, 0.2])
    correct = np.arange(7) == 4
    return TreePicture(
        tree, PolarPoints.from_tangent(tangent), potential=potential, correct=correct, chosen=4, title="T <i>itle</i>"
    )
