"""Scores of a growing tree's nodes, kept exact as values and visits change.

A selection step reads a few vectors and loops over no nodes; a visit touches the nodes of one path. Nothing is
queued, so no score can be stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lapha.tree import SearchTree
from lapha.types import Status

if TYPE_CHECKING:
    from lapha.search.config import SearchConfig

_OPEN = int(Status.OPEN)
_FIELDS = {
    "quality": np.float64,
    "exploration": np.float64,
    "closed": np.float64,
    "virtual": np.int32,
    "open": np.int32,
}


class Frontier:
    """What the selection rules read. Arrays hold N entries for the tree's N nodes, read through the methods below.

    * quality: Q_eff(n) = W/N if visited, else value_trust·v̂ + (1 − value_trust)·v_prior;
    * exploration: P(n)/(1 + N(n)), to be scaled by c_puct·√(expansions + 1);
    * closed: 0 where the node may be expanded now, else −inf;
    * virtual: visits of value 0 added to N for expansions under way;
    * open: how many nodes of the subtree, itself included, may be expanded now.

    Args:
        tree: a tree whose root has its value.
        config: the search's settings.
    """

    def __init__(self, tree: SearchTree, config: SearchConfig) -> None:
        self.tree = tree
        self.config = config
        self.expansions = 0
        self.started: list[int] = []
        self.under_way: dict[int, int] = {}
        self.limits = [config.expansion_limit(depth) for depth in range(config.max_depth + 1)]
        self._arrays = {name: np.zeros(64, dtype) for name, dtype in _FIELDS.items()}
        self._parent: list[int] = []
        self._cut: set[int] = set()
        self._grow(1)
        self._parent.append(-1)
        self.started.append(0)
        self._refresh(0)
        self._arrays["closed"][0] = -np.inf
        self._set_open(0)

    def __len__(self) -> int:
        return len(self.started)

    # --- reading ---------------------------------------------------------------------------------------------

    def scores(self) -> np.ndarray:
        """(N,) float64 score(n) = Q_eff(n) + c_puct·P(n)·√(E + 1)/(1 + N(n)); −inf where n may not be expanded."""
        size, arrays = len(self.started), self._arrays
        weight = self.config.c_puct * (self.expansions + 1) ** 0.5
        return arrays["quality"][:size] + weight * arrays["exploration"][:size] + arrays["closed"][:size]

    def child_scores(self, node: int, children: Sequence[int]) -> np.ndarray:
        """(K,) float64 PUCT scores of some children of `node`: Q_eff + c_puct·P·√(Σ N)/(1 + N), Σ N ≥ 1 over all."""
        index, siblings = np.asarray(children), self.tree.children[node]
        arrays = self._arrays
        total = int(self.tree.visits[siblings].sum() + arrays["virtual"][siblings].sum())
        weight = self.config.c_puct * max(total, 1) ** 0.5
        return arrays["quality"][index] + weight * arrays["exploration"][index]

    def may_expand(self, node: int) -> bool:
        """Whether `node` may be expanded now: open, not cut off by pruning, below its limits."""
        return bool(self._arrays["closed"][node] == 0)

    def in_work(self, node: int) -> bool:
        """Whether an expansion of `node` has begun and not ended."""
        return self.under_way.get(node, 0) > 0

    def open_below(self, node: int) -> int:
        """How many nodes of the subtree at `node` may be expanded now."""
        return int(self._arrays["open"][node])

    def finished(self, node: int) -> bool:
        """Whether `node` can never be expanded again."""
        return not self._below_limit(node)

    # --- writing ---------------------------------------------------------------------------------------------

    def add(self, parent: int, nodes: Sequence[int]) -> None:
        """Take in new children of `parent`; call it once their values are in the tree, and then `set_priors`."""
        self._grow(len(nodes))
        self._parent += [parent] * len(nodes)
        self.started += [0] * len(nodes)
        for node in nodes:
            self._arrays["closed"][node] = -np.inf
            self._set_open(node)
            self._refresh(node)
        self._set_open(parent)

    def set_priors(self, siblings: np.ndarray, priors: np.ndarray) -> None:
        """Give the children `siblings` (K,) of one node their priors (K,); costs no Python loop."""
        columns, arrays = self.tree.columns, self._arrays
        columns["prior"][siblings] = priors
        visits = columns["visits"][siblings] + arrays["virtual"][siblings]
        arrays["exploration"][siblings] = columns["prior"][siblings].astype(np.float64) / (1 + visits)

    def start(self, node: int) -> None:
        """An expansion of `node` begins: it counts, and the path to it is under a virtual loss."""
        self.started[node] += 1
        self.expansions += 1
        self.under_way[node] = self.under_way.get(node, 0) + 1
        self._shift_virtual(node, self.config.virtual_loss)
        self._set_open(node)

    def finish(self, node: int) -> None:
        """The expansion of `node` has ended, well or not."""
        self.under_way[node] -= 1
        self._shift_virtual(node, -self.config.virtual_loss)

    def visit(self, node: int, value: float) -> None:
        """Back `value` up: N += 1 and W += value + the rewards from there on, on the path from `node` to the root."""
        columns, widening = self.tree.columns, self.config.widening
        visits, value_sum, reward = columns["visits"], columns["value_sum"], columns["reward"]
        while node >= 0:
            value += float(reward[node])
            visits[node] += 1
            value_sum[node] += value
            self._refresh(node)
            if widening is not None:
                self._set_open(node)
            node = self._parent[node]

    def cut(self, nodes: Iterable[int]) -> list[int]:
        """Close the subtrees at pruned `nodes` for good; returns the nodes that this closed for the first time."""
        stack, fresh = [int(node) for node in nodes], []
        while stack:
            node = stack.pop()
            if node not in self._cut:
                self._cut.add(node)
                self._set_open(node)
                fresh.append(node)
                stack += self.tree.children[node]
        return fresh

    # --- inside ----------------------------------------------------------------------------------------------

    def _grow(self, count: int) -> None:
        size = len(self.started) + count
        for name, array in self._arrays.items():
            if len(array) < size:
                self._arrays[name] = np.concatenate([array, np.zeros(max(len(array), count), array.dtype)])

    def _refresh(self, node: int) -> None:
        """Recompute the node's quality and exploration from the tree."""
        columns, arrays = self.tree.columns, self._arrays
        count = int(columns["visits"][node]) + int(arrays["virtual"][node])
        arrays["exploration"][node] = float(columns["prior"][node]) / (1 + count)
        if count:
            arrays["quality"][node] = float(columns["value_sum"][node]) / count
        else:
            arrays["quality"][node] = self.node_value(node) + float(columns["reward"][node])

    def node_value(self, node: int) -> float:
        """value_trust·v̂ + (1 − value_trust)·v_prior; v_prior where v̂ is unknown."""
        config, estimate = self.config, float(self.tree.columns["value"][node])
        if estimate != estimate:  # NaN: the evaluator has no value for it
            return config.v_prior
        return config.value_trust * estimate + (1 - config.value_trust) * config.v_prior

    def _below_limit(self, node: int) -> bool:
        columns = self.tree.columns
        if columns["status"][node] != _OPEN or node in self._cut:
            return False
        return self.started[node] < self.limits[columns["depth"][node]]

    def _expandable(self, node: int) -> bool:
        if not self._below_limit(node):
            return False
        widening = self.config.widening
        if widening is None or self.started[node] == 0:
            return True
        constant, exponent = widening
        children = self.started[node] * self.config.breadth
        return children < constant * max(int(self.tree.visits[node]), 1) ** exponent

    def _set_open(self, node: int) -> None:
        """Bring `closed` at the node, and the counts of open nodes above it, up to date."""
        arrays = self._arrays
        was, now = arrays["closed"][node] == 0, self._expandable(node)
        if was == now:
            return
        arrays["closed"][node] = 0 if now else -np.inf
        counts, change = arrays["open"], 1 if now else -1
        while node >= 0:
            counts[node] += change
            node = self._parent[node]

    def _shift_virtual(self, node: int, change: int) -> None:
        if change == 0:
            return
        virtual = self._arrays["virtual"]
        while node >= 0:
            virtual[node] += change
            self._refresh(node)
            node = self._parent[node]
