"""A search tree as a struct of arrays.

Node 0 is the root; a node's index is always larger than its parent's, so one pass in index order visits parents
first and one in reverse order children first. Nothing is ever removed: pruning sets a flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lapha._checks import check
from lapha._typed import typed
from lapha.types import Status

NO_PARENT = -1
PriorRule = Literal["sum", "mean", "uniform"]
_OPEN = int(Status.OPEN)  # looking a member of an enum up costs more than the comparison

# field -> (dtype, value of a new node)
FIELDS: dict[str, tuple[Any, Any]] = {
    "parent": (np.int32, NO_PARENT),
    "depth": (np.int16, 0),
    "status": (np.uint8, Status.OPEN),
    "pruned": (np.bool_, False),
    "well_formed": (np.bool_, False),
    "visits": (np.int32, 0),
    "value_sum": (np.float64, 0.0),
    "value": (np.float32, np.nan),
    "prior": (np.float32, 1.0),
    "logprob": (np.float32, 0.0),
    "expansions": (np.int32, 0),
    "bridge_length": (np.int32, 0),
    "simulation": (np.int32, 0),
    "pruned_at": (np.int32, -1),
    "backed_up": (np.float64, np.nan),
    "reward": (np.float64, 0.0),
}


class SearchTree:
    """The tree that a search grows for one question.

    Array attributes, each of shape (N,) for the N nodes so far (views: do not keep them across `add`):

    * ``parent`` int32, −1 at the root; ``depth`` int16, 0 at the root; ``status`` uint8, a `Status`;
    * ``pruned`` bool, disabled by the pruner; ``well_formed`` bool, the formatting bonus b of the step;
    * ``visits`` int32, N; ``value_sum`` float64, W; ``value`` float32, v̂(s) in [0, 1] or NaN if unknown;
    * ``prior`` float32, softmax over siblings of the step's cumulative log-probability;
    * ``logprob`` float32, sum of the step's token log-probabilities; ``expansions`` int32, times expanded;
    * ``bridge_length`` int32, how many of the node's own tokens were appended rather than sampled;
    * ``simulation`` int32, the simulation that made the node (0 for the root, then from 1), ``pruned_at`` int32, the one
      after which it was pruned (−1 never), ``backed_up`` float64, the value backed up when it was made (NaN none):
      with ``revisits`` and ``repeats``, what it takes to rewind a tree (`lapha.tree.rewind`);
    * ``reward`` float64, what the step itself earned on the way (0 where the environment gives none).

    List attributes of length N: ``tokens`` (the node's own token ids: bridge, then sampled ones; the root's are the
    prompt), ``logprobs`` (per sampled token), ``text``, ``answer`` (None unless it answers), ``children``.
    ``revisits`` lists (simulation, leaf) for simulations that ended in a leaf made earlier, ``repeats`` (simulation, node)
    for samples that were a node's token ids once more and became one with it. ``prior_rule`` and ``prior_temperature`` say
    how priors come from log-probabilities. ``stats`` holds counters.

    Args:
        question: the question as asked.
        prompt_ids: token ids of the root state.
    """

    parent: np.ndarray
    depth: np.ndarray
    status: np.ndarray
    pruned: np.ndarray
    well_formed: np.ndarray
    visits: np.ndarray
    value_sum: np.ndarray
    value: np.ndarray
    prior: np.ndarray
    logprob: np.ndarray
    expansions: np.ndarray
    bridge_length: np.ndarray
    simulation: np.ndarray
    pruned_at: np.ndarray
    backed_up: np.ndarray
    reward: np.ndarray

    @typed
    def __init__(self, question: str, prompt_ids: Sequence[int], capacity: int = 64) -> None:
        check(capacity >= 1, "capacity", "an integer >= 1", capacity)
        self.question = question
        self.tokens: list[tuple[int, ...]] = []
        self.logprobs: list[tuple[float, ...]] = []
        self.text: list[str] = []
        self.answer: list[str | None] = []
        self.children: list[list[int]] = []
        self.revisits: list[tuple[int, int]] = []
        self.repeats: list[tuple[int, int]] = []
        self.prior_rule: PriorRule = "sum"
        self.prior_temperature = 1.0
        self.stats: dict[str, float] = {}
        self._size = 0
        self._store = {name: np.full(capacity, fill, dtype) for name, (dtype, fill) in FIELDS.items()}
        self._append(tuple(prompt_ids), (), question, None)

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        from lapha.tree.display import describe

        return describe(self)

    def _repr_html_(self) -> str:
        from lapha.tree.display import outline_html

        return outline_html(self)

    def __rich__(self) -> Any:
        from lapha.tree.display import rich_tree

        return rich_tree(self)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The arrays by name with their spare capacity: entries from ``len(tree)`` on mean nothing. For inner loops."""
        return self._store

    def __getattr__(self, name: str) -> np.ndarray:
        if name in FIELDS:
            return self.__dict__["_store"][name][: self.__dict__["_size"]]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def add(
        self,
        parent: int,
        *,
        tokens: Sequence[int],
        bridge_length: int = 0,
        logprobs: Sequence[float] = (),
        text: str = "",
        answer: str | None = None,
        status: Status = Status.OPEN,
        well_formed: bool = False,
        value: float = float("nan"),
    ) -> int:
        """Add one node under `parent` and return its index.

        Raises:
            ValueError: unknown parent, or one that is terminal.
        """
        if not 0 <= parent < self._size:
            raise ValueError(f"parent: expected a node in [0, {self._size}), got {parent}")
        if self._store["status"][parent] != _OPEN:
            raise ValueError(f"parent: expected a node that is not terminal, got node {parent}")
        node = self._append(tuple(tokens), tuple(logprobs), text, answer)
        store = self._store
        store["parent"][node] = parent
        store["depth"][node] = store["depth"][parent] + 1
        store["status"][node] = status
        store["well_formed"][node] = well_formed
        store["value"][node] = value
        store["bridge_length"][node] = bridge_length
        store["logprob"][node] = sum(logprobs)
        self.children[parent].append(node)
        return node

    def _append(self, tokens: tuple[int, ...], logprobs: tuple[float, ...], text: str, answer: str | None) -> int:
        node = self._size
        capacity = len(self._store["parent"])
        if node == capacity:
            for name, (dtype, fill) in FIELDS.items():
                self._store[name] = np.concatenate([self._store[name], np.full(capacity, fill, dtype)])
        self.tokens.append(tokens)
        self.logprobs.append(logprobs)
        self.text.append(text)
        self.answer.append(answer)
        self.children.append([])
        self._size = node + 1
        return node

    def restore(self, columns: dict[str, np.ndarray], **lists: list[Any]) -> None:
        """Replace all nodes: `columns` holds every field, (N,); `lists` tokens, logprobs, text and answer.

        The caller has checked lengths and parents.
        """
        self._size = len(columns["parent"])
        self._store = {name: np.array(columns[name], dtype) for name, (dtype, _) in FIELDS.items()}
        for name, values in lists.items():
            setattr(self, name, values)
        self.children = [[] for _ in range(self._size)]
        for node, parent in enumerate(self._store["parent"].tolist()):
            if parent >= 0:
                self.children[parent].append(node)

    def path(self, node: int) -> list[int]:
        """Nodes from the root to `node`, both included."""
        check(0 <= node < self._size, "node", f"a node in [0, {self._size})", node)
        parent = self.parent
        nodes = [node]
        while parent[nodes[-1]] >= 0:
            nodes.append(int(parent[nodes[-1]]))
        return nodes[::-1]

    def context_ids(self, node: int) -> tuple[int, ...]:
        """All token ids of the state at `node`: the prompt, then every step's bridge and sampled tokens."""
        return tuple(token for step in self.path(node) for token in self.tokens[step])

    def sampled_ids(self, node: int) -> tuple[int, ...]:
        """The tokens that the policy sampled at `node` (empty for the root)."""
        return self.tokens[node][int(self.bridge_length[node]) :] if node else ()

    def leaves(self) -> np.ndarray:
        """Terminal nodes that are not pruned, as an int array (K,)."""
        return np.flatnonzero((self.status != Status.OPEN) & ~self.pruned)

    def answered(self) -> np.ndarray:
        """Unpruned leaves that hold an answer, as an int array (K,)."""
        return np.flatnonzero((self.status == Status.ANSWERED) & ~self.pruned)

    def siblings(self) -> Iterator[tuple[int, list[int]]]:
        """(parent, children) for every node that has children, parents in index order."""
        for node, children in enumerate(self.children):
            if children:
                yield node, children

    def subtree_mean(self, leaf_values: np.ndarray) -> np.ndarray:
        """Mean of `leaf_values` over each node's terminal descendants (itself included).

        Args:
            leaf_values: (N,) numbers, read at terminal nodes only.

        Returns:
            (N,) float64; NaN where a node has no terminal descendant.
        """
        check(len(leaf_values) == self._size, "leaf_values", f"length {self._size}", len(leaf_values))
        terminal = self.status != Status.OPEN
        total = np.where(terminal, np.asarray(leaf_values, dtype=np.float64), 0.0)
        count = terminal.astype(np.float64)
        for node in range(self._size - 1, 0, -1):
            total[self.parent[node]] += total[node]
            count[self.parent[node]] += count[node]
        return np.divide(total, count, out=np.full(self._size, np.nan), where=count > 0)

    def save(self, path: str | Path) -> None:
        """Write the tree to `path` as JSON, see `lapha.tree.storage`.

        Raises:
            ValueError: the folder does not exist or cannot be written.
        """
        from lapha.tree.storage import save_tree

        save_tree(self, path)

    @staticmethod
    def load(path: str | Path) -> SearchTree:
        """Read a tree that `save` wrote.

        Raises:
            ValueError: the file is missing, foreign, truncated, or of a newer version.
        """
        from lapha.tree.storage import load_tree

        return load_tree(path)

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the policy sampled for the whole tree: the cost that modes are compared at."""
        once = sum(map(len, self.tokens)) - len(self.tokens[0]) - int(self.bridge_length[1:].sum())
        return once + sum(len(self.sampled_ids(node)) for _, node in self.repeats)

    def multiplicity(self) -> np.ndarray:
        """(N,) int64: how often each node was sampled, 1 unless it was repeated."""
        counts = np.ones(self._size, dtype=np.int64)
        np.add.at(counts, [node for _, node in self.repeats], 1)
        return counts
