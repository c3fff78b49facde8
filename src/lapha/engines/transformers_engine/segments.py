"""What the engine keeps of a state: its own tokens' keys and values, linked to its parent's."""

from __future__ import annotations

import weakref
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

import torch


@dataclass(eq=False, repr=False, slots=True, weakref_slot=True)
class Segment:
    """A state's own part of the context, behind its parent's; the engine's `State.handle`.

    Attributes:
        parent: the segment before this one, or None at the start of a context.
        token_ids: this segment's own tokens.
        kv: (layers, 2, heads, T, head_dim) keys and values of those tokens; None if evicted, or never kept.
        hidden_sum: (H,) float32 sum of last hidden states over the whole context up to here.
        count: tokens in that sum.
        last_hidden: (H,) last hidden state of the last token: the next token's logits need no forward pass.
        epoch: of the engine and the weights that computed it; compared by identity.
        bridge: the segment that last continued this one by appended tokens, so that a second expansion finds it; weak,
            because that segment links back here.
    """

    parent: Segment | None
    token_ids: tuple[int, ...]
    kv: torch.Tensor | None
    hidden_sum: torch.Tensor
    count: int
    last_hidden: torch.Tensor
    epoch: object
    bridge: weakref.ref[Segment] | None = None

    def path(self) -> list[Segment]:
        """Segments from the start of the context to this one."""
        segments = [self]
        while segments[-1].parent is not None:
            segments.append(segments[-1].parent)
        return segments[::-1]

    def bridged(self, bridge_ids: tuple[int, ...]) -> Segment | None:
        """The living segment that continues this one by exactly `bridge_ids`."""
        segment = self.bridge() if self.bridge is not None else None
        return segment if segment is not None and segment.token_ids == bridge_ids else None

    @property
    def pooled(self) -> torch.Tensor:
        """(H,) float32 h(s)."""
        return self.hidden_sum / self.count


class SegmentStore:
    """Bounds the memory of all segments' keys and values; the least recently used are dropped first.

    Segments are held weakly: a tree that is gone frees its segments itself. Only contexts that came without a handle are
    held, up to `max_roots` of them: they are found again by their token ids, and so is what begins with them. All methods are called from one thread; only garbage collection
    comes from others, and it touches nothing but a queue.

    Args:
        budget_bytes: most bytes of keys and values; 0 keeps none.
        max_roots: most contexts remembered by their token ids.
    """

    def __init__(self, budget_bytes: int, max_roots: int = 8192) -> None:
        self.budget_bytes = budget_bytes
        self.max_roots = max_roots
        self.bytes = 0
        self.evicted = 0
        self._roots: OrderedDict[tuple[int, ...], Segment] = OrderedDict()
        self._lengths: Counter[int] = Counter()  # of the roots
        self._used: OrderedDict[int, tuple[weakref.ref[Segment], int]] = OrderedDict()
        self._dead: deque[tuple[int, weakref.ref[Segment]]] = deque()

    def root(self, token_ids: tuple[int, ...]) -> Segment | None:
        """The remembered segment whose context is exactly `token_ids`."""
        segment = self._roots.get(token_ids)
        if segment is not None:
            self._roots.move_to_end(token_ids)
        return segment

    def longest_prefix(self, token_ids: tuple[int, ...]) -> tuple[Segment | None, int]:
        """The remembered segment with the longest context that `token_ids` begin with, and that context's length."""
        for length in sorted((length for length in self._lengths if length < len(token_ids)), reverse=True):
            segment = self.root(token_ids[:length])
            if segment is not None:
                return segment, length
        return None, 0

    def add_root(self, token_ids: tuple[int, ...], segment: Segment) -> None:
        """Remember a segment by its whole context."""
        if token_ids not in self._roots:
            self._lengths[len(token_ids)] += 1
        self._roots[token_ids] = segment
        if len(self._roots) > self.max_roots:
            oldest, _ = self._roots.popitem(last=False)
            self._lengths[len(oldest)] -= 1
            if not self._lengths[len(oldest)]:
                del self._lengths[len(oldest)]

    def put(self, segment: Segment, kv: torch.Tensor) -> None:
        """Give `segment` its keys and values, as the most recently used."""
        self._forget_dead()
        key, size = id(segment), kv.numel() * kv.element_size()
        if size > self.budget_bytes:
            return
        if key in self._used:
            self.bytes -= self._used.pop(key)[1]
        segment.kv = kv
        dead = self._dead
        self._used[key] = (weakref.ref(segment, lambda ref: dead.append((key, ref))), size)
        self.bytes += size
        while self.bytes > self.budget_bytes:
            reference, freed = self._used.popitem(last=False)[1]
            self.bytes -= freed
            victim = reference()
            if victim is not None:
                victim.kv = None
                self.evicted += 1

    def touch(self, segments: list[Segment]) -> None:
        """Mark as used just now."""
        for segment in segments:
            if id(segment) in self._used:
                self._used.move_to_end(id(segment))

    def clear(self) -> None:
        """Drop all keys and values, and all remembered contexts."""
        for reference, _ in self._used.values():
            segment = reference()
            if segment is not None:
                segment.kv = None
        self._used.clear()
        self._roots.clear()
        self._lengths.clear()
        self.bytes = 0

    def _forget_dead(self) -> None:
        while self._dead:
            key, reference = self._dead.popleft()
            entry = self._used.get(key)
            if entry is not None and entry[0] is reference:  # the id may have been given to a new segment since
                self.bytes -= self._used.pop(key)[1]
