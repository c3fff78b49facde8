"""Whole trees packed so that every token goes through the model once.

A tree's sampled steps share their contexts. Row by row, a step of two hundred tokens drags its path through every layer, as
often as there are steps below it. Packed, a tree is one sequence in depth-first order: a token sees its own step so far and
the steps above it, and its position is its distance from the root. In that order the tokens that may see a token are one
range, from itself to the end of its step's subtree, which is all that a mask has to know.

A step's first token is predicted by the last token of what it continues, as every other token by the one before it; so one
position may predict several tokens, one a child.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lapha._checks import check
from lapha.integrations.shaped import ShapedTree, rows_of_group

PADDING = -1


@dataclass(frozen=True)
class TreePart:
    """Nodes of one tree that a sequence answers for; their ancestors go along as context.

    Attributes:
        shaped: the tree.
        nodes: the nodes whose states and sampled steps are trained there.
    """

    shaped: ShapedTree
    nodes: frozenset[int]


@dataclass
class PackedTrees:
    """Trees in one sequence of L tokens; B rows (trained steps) of at most C tokens, P predicted tokens, K states.

    Attributes:
        input_ids, position_ids: (1, L) int64.
        segments: (start, stop, reach) of every step in depth-first order: its own tokens, and the end of its subtree.
        positions, targets: (P,) int64: the position before each trained token, and the token.
        index: (B, C) int64: which of the P each row's tokens are, −1 in padding.
        advantages, centred: (B,) float32, rewards normalised among siblings, and only centred.
        logged: (B, C) float32, log-probabilities at temperature 1 when sampled; 0 in padding.
        last_ids: (B,) int64, each row's last token.
        state_of, segment_of: pairs (state, segment on its path), int64.
        state_length: (K,) int64, tokens of each state.
        value_targets: (K,) float32, no NaN.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: list[tuple[int, int, int]]
    positions: Tensor
    targets: Tensor
    index: Tensor
    advantages: Tensor
    centred: Tensor
    logged: Tensor
    last_ids: Tensor
    state_of: Tensor
    segment_of: Tensor
    state_length: Tensor
    value_targets: Tensor
    state_last: Tensor
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.input_ids.shape[1]

    def reach(self) -> Tensor:
        """(L,) int64: a token at q sees a token at k if k ≤ q < reach[k]."""
        lengths = torch.tensor([stop - start for start, stop, _ in self.segments])
        return torch.tensor([end for _, _, end in self.segments]).repeat_interleave(lengths).to(self.input_ids.device)

    def attention_mask(self) -> Tensor:
        """(L, L) bool, what each position may see."""
        position = torch.arange(len(self), device=self.input_ids.device)
        return (position[None, :] <= position[:, None]) & (position[:, None] < self.reach()[None, :])

    def completion_mask(self) -> Tensor:
        """(B, C) int64, 1 at the rows' tokens."""
        return (self.index != PADDING).long()

    def rows(self, values: Tensor) -> Tensor:
        """(P,) numbers of the predicted tokens → (B, C); 0 in padding."""
        padded = torch.cat([values, values.new_zeros(1)])
        return padded[self.index]

    def pad_rows(self, count: int) -> None:
        """Add rows without tokens until there are `count`."""
        more = count - len(self.index)
        self.index = torch.cat([self.index, self.index.new_full((more, self.index.shape[1]), PADDING)])
        self.logged = torch.cat([self.logged, self.logged.new_zeros(more, self.logged.shape[1])])
        for name in ("advantages", "centred", "last_ids"):
            values = getattr(self, name)
            setattr(self, name, torch.cat([values, values.new_zeros(more)]))

    def state_logits(self, scores: Tensor) -> Tensor:
        """Value logits (K,) of the states from the head's scores (L,): means over each state's tokens."""
        lengths = torch.tensor([stop - start for start, stop, _ in self.segments], device=scores.device)
        owner = torch.arange(len(self.segments), device=scores.device).repeat_interleave(lengths)
        sums = scores.new_zeros(len(self.segments), dtype=torch.float32).index_add(0, owner, scores.float())
        totals = sums.new_zeros(len(self.state_length)).index_add(0, self.state_of, sums[self.segment_of])
        return totals / self.state_length

    def to(self, device: torch.device) -> PackedTrees:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return PackedTrees(**{**vars(self), **moved, "cache": {}})


def taught_nodes(shaped: ShapedTree, *, values: bool = True) -> frozenset[int]:
    """The nodes of a tree that teach something: members of its groups and, with `values`, states with a target."""
    found = {int(member) for group in shaped.groups for member in group.members}
    if values:
        found |= set((~shaped.value_target.isnan()).nonzero()[:, 0].tolist())
    return frozenset(found)


def split_trees(trees: Sequence[ShapedTree], batches: int, *, values: bool = True) -> list[list[TreePart]]:
    """Divide what trees teach into `batches` lists of about equally many tokens.

    A tree stays whole where it fits; a larger one is cut in depth-first order, and each part takes its ancestors along.
    """
    wholes = [(shaped, nodes) for shaped in trees if (nodes := taught_nodes(shaped, values=values))]
    total = sum(_tokens(shaped, nodes) for shaped, nodes in wholes)
    limit = math.ceil(total / batches)
    parts = [part for shaped, nodes in wholes for part in _cut(shaped, nodes, limit)]
    heap: list[tuple[int, int]] = [(0, number) for number in range(batches)]
    result: list[list[TreePart]] = [[] for _ in range(batches)]
    for part in sorted(parts, key=lambda part: -_tokens(part.shaped, part.nodes)):
        size, number = heapq.heappop(heap)
        result[number].append(part)
        heapq.heappush(heap, (size + _tokens(part.shaped, part.nodes), number))
    return result


def _with_ancestors(shaped: ShapedTree, nodes: Collection[int]) -> set[int]:
    found: set[int] = set()
    for node in nodes:
        while node >= 0 and node not in found:
            found.add(node)
            node = int(shaped.tree.parent[node])
    return found


def _tokens(shaped: ShapedTree, nodes: Collection[int]) -> int:
    return sum(len(shaped.tree.tokens[node]) for node in _with_ancestors(shaped, nodes))


def _depth_first(shaped: ShapedTree) -> list[int]:
    order, stack = [], [0]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += reversed(shaped.tree.children[node])
    return order


def _cut(shaped: ShapedTree, nodes: frozenset[int], limit: int) -> list[TreePart]:
    if _tokens(shaped, nodes) <= limit:
        return [TreePart(shaped, nodes)]
    parts: list[TreePart] = []
    own: set[int] = set()
    covered: set[int] = set()
    size = 0
    for node in _depth_first(shaped):
        if node not in nodes:
            continue
        new = _with_ancestors(shaped, [node]) - covered
        more = sum(len(shaped.tree.tokens[other]) for other in new)
        if own and size + more > limit:
            parts.append(TreePart(shaped, frozenset(own)))
            own, covered, size = set(), set(), 0
            new = _with_ancestors(shaped, [node])
            more = sum(len(shaped.tree.tokens[other]) for other in new)
        own.add(node)
        covered |= new
        size += more
    return [*parts, TreePart(shaped, frozenset(own))]


class _Packer:
    """Builds the lists behind a `PackedTrees`."""

    def __init__(self, values: bool) -> None:
        self.values = values
        self.ids: list[int] = []
        self.places: list[int] = []
        self.segments: list[list[int]] = []
        self.pairs: list[tuple[int, int]] = []  # (position, target)
        self.rows: list[tuple[list[int], float, float, list[float], int]] = []
        self.states: list[tuple[list[int], int, float, int]] = []  # segments on the path, tokens, target, last token

    def add(self, part: TreePart) -> None:
        tree = part.shaped.tree
        here = _with_ancestors(part.shaped, part.nodes)
        trained = {}
        for group in part.shaped.groups:
            rewards = part.shaped.reward[group.members]
            centred = (rewards - rewards.mean()).tolist()
            rows = rows_of_group(part.shaped, group)
            for member, row, plain in zip(group.members.tolist(), rows, centred, strict=True):
                if member in part.nodes:
                    trained[member] = (row.advantage, plain)

        def visit(node: int, path: list[int], last: int, depth: int) -> None:
            """`path`: segments above; `last`: position of the token before; `depth`: tokens above."""
            tokens = list(tree.tokens[node])
            bridge = int(tree.bridge_length[node]) if node else len(tokens)
            begins = len(self.segments)
            shared = len(path) and path[-1] in self.bridges
            own = tokens[bridge:] if shared else tokens
            start = self._segment(own, depth)
            path = [*path, begins]
            first = start if shared else start + bridge
            if node in trained and len(tokens) > bridge:
                advantage, plain = trained[node]
                before = [last if first == start else first - 1, *range(first, start + len(own) - 1)]
                pair = [len(self.pairs) + offset for offset in range(len(before))]
                self.pairs += list(zip(before, tokens[bridge:], strict=True))
                self.rows.append((pair, advantage, plain, list(tree.logprobs[node]), tokens[-1]))
            end, depth = start + len(own) - 1 if own else last, depth + len(own)
            target = float(part.shaped.value_target[node])
            if self.values and node in part.nodes and not math.isnan(target):
                self.states.append((path, depth, target, tokens[-1] if node else PADDING))
            groups: dict[tuple[int, ...], list[int]] = {}
            for child in tree.children[node]:
                if child in here:
                    groups.setdefault(tuple(tree.tokens[child][: int(tree.bridge_length[child])]), []).append(child)
            for between, children in groups.items():
                above, before_child, at = path, end, depth
                if between and len(children) > 1:  # siblings share what stands between their parent's step and theirs
                    number = len(self.segments)
                    self.bridges.add(number)
                    begin = self._segment(list(between), depth)
                    above, before_child, at = [*path, number], begin + len(between) - 1, depth + len(between)
                for child in children:
                    visit(child, above, before_child, at)
                if above is not path:
                    self.segments[number][2] = len(self.ids)
            self.segments[begins][2] = len(self.ids)

        self.bridges: set[int] = set()
        visit(0, [], -1, 0)

    def _segment(self, tokens: list[int], depth: int) -> int:
        start = len(self.ids)
        self.ids += tokens
        self.places += range(depth, depth + len(tokens))
        self.segments.append([start, len(self.ids), len(self.ids)])
        return start


def pack_trees(parts: Sequence[TreePart], *, values: bool = True) -> PackedTrees:
    """Pack parts of trees into one sequence.

    Args:
        parts: at least one.
        values: whether states with a target are among what is packed.

    Raises:
        ValueError: no parts.
    """
    check(len(parts) > 0, "parts", "at least one part of a tree", 0)
    packer = _Packer(values)
    for part in parts:
        packer.add(part)
    width = max((len(pair) for pair, *_ in packer.rows), default=1)
    index = torch.full((len(packer.rows), width), PADDING)
    logged = torch.zeros(len(packer.rows), width)
    for row, (pair, _, _, logprobs, _) in enumerate(packer.rows):
        index[row, : len(pair)] = torch.tensor(pair)
        logged[row, : len(logprobs)] = torch.tensor(logprobs)
    if not packer.pairs:  # a language model's head that runs on every process waits for that of the others
        packer.pairs = [(0, packer.ids[0])]
    on_path = [(state, segment) for state, (path, *_) in enumerate(packer.states) for segment in path]

    def integers(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long)

    return PackedTrees(
        input_ids=integers(packer.ids)[None],
        position_ids=integers(packer.places)[None],
        segments=[(start, stop, reach) for start, stop, reach in packer.segments],
        positions=integers([position for position, _ in packer.pairs]),
        targets=integers([target for _, target in packer.pairs]),
        index=index,
        advantages=torch.tensor([row[1] for row in packer.rows]),
        centred=torch.tensor([row[2] for row in packer.rows]),
        logged=logged,
        last_ids=integers([row[4] for row in packer.rows]),
        state_of=integers([state for state, _ in on_path]),
        segment_of=integers([segment for _, segment in on_path]),
        state_length=integers([state[1] for state in packer.states]),
        value_targets=torch.tensor([state[2] for state in packer.states]),
        state_last=integers([state[3] for state in packer.states]),
    )
