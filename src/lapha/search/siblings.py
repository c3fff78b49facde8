"""Children of one node: which token ids they hold, how often each was sampled, and their priors."""

from __future__ import annotations

import numpy as np

from lapha.search.config import SearchConfig
from lapha.tree import SearchTree
from lapha.tree.priors import prior_logits, softmax


class _Family:
    """The children of one node in arrays that grow by doubling, so that a wide node costs no Python loop a child."""

    def __init__(self) -> None:
        self.by_tokens: dict[tuple[int, ...], int] = {}
        self.place: dict[int, int] = {}
        self.nodes = np.empty(8, dtype=np.int64)
        self.logits = np.empty(8)
        self.copies = np.ones(8)

    def append(self, node: int, logit: float, tokens: tuple[int, ...]) -> None:
        size = len(self.place)
        if size == len(self.nodes):
            for name in ("nodes", "logits", "copies"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.ones_like(array)]))
        self.nodes[size], self.logits[size] = node, logit
        self.place[node] = size
        self.by_tokens[tokens] = node


class Siblings:
    """All families of a tree.

    Args:
        tree: the tree, whose rule for priors is set here.
        config: the search's settings.
    """

    def __init__(self, tree: SearchTree, config: SearchConfig) -> None:
        tree.prior_rule, tree.prior_temperature = config.prior, config.prior_temperature
        self._tree = tree
        self._families: dict[int, _Family] = {}

    def known(self, parent: int) -> dict[tuple[int, ...], int]:
        """Children of `parent` by the token ids that were sampled for them."""
        family = self._families.get(parent)
        return family.by_tokens if family is not None else {}

    def add(self, parent: int, node: int, tokens: tuple[int, ...]) -> None:
        """`node` is a new child of `parent`."""
        family = self._families.setdefault(parent, _Family())
        family.append(node, float(prior_logits(self._tree, [node])[0]), tokens)

    def repeat(self, parent: int, tokens: tuple[int, ...]) -> int:
        """One more sample of a child of `parent`; returns the child."""
        family = self._families[parent]
        node = family.by_tokens[tokens]
        family.copies[family.place[node]] += 1
        return node

    def priors(self, parent: int) -> tuple[np.ndarray, np.ndarray]:
        """The children of `parent` (K,) and their priors (K,): each has the mass of all its samples."""
        family = self._families.get(parent)
        if family is None:
            return np.empty(0, dtype=np.int64), np.empty(0)
        size = len(family.place)
        return family.nodes[:size], softmax(family.logits[:size] + np.log(family.copies[:size]))
