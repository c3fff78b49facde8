"""The KV cache of the running batch: rows of preallocated slots that transformers models write into.

`DynamicCache` concatenates every layer's keys and values at every token, and keeps all rows at one length. Here a
row has its own length: a new token's keys and values are written behind the row's last ones, and the mask hides what
lies beyond. Rows can therefore join and leave between any two steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

LENGTH_STEP = 64  # slots grow by this many tokens


@dataclass(frozen=True, slots=True)
class KVShape:
    """Shape of one token's keys and values in a model whose layers are alike."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.heads * self.head_dim * self.dtype.itemsize


class SlotBuffer:
    """Keys, values and masks of up to `rows` sequences, each in a slot of `length` tokens; both grow on demand.

    Attributes:
        kv: (layers, 2, rows + 1, heads, length, head_dim); the last row takes what is not to be kept (padding).
        bias: (rows + 1, length) additive attention mask: 0 where a slot holds a token, the dtype's minimum elsewhere.
        ids: (rows + 1, length) int64 token ids of each row, filled beyond its length with its first token.
        lengths: (rows + 1,) int64 tokens in each slot.
        sums: (rows + 1, H) float32 sum of each row's last hidden states.
        tokens: (rows + 1,) int64 token that each row is fed next.
    """

    def __init__(self, shape: KVShape, hidden_size: int) -> None:
        self.shape = shape
        self.hidden_size = hidden_size
        self.rows = 0
        self.length = 0
        self.hidden = torch.finfo(shape.dtype).min
        self._allocate(0, 0)

    def _allocate(self, rows: int, length: int) -> None:
        shape, device = self.shape, self.shape.device
        size = (shape.layers, 2, rows + 1, shape.heads, length, shape.head_dim)
        # zeros, not empty: a masked slot is multiplied by probability 0, and 0 · NaN would be NaN
        self.kv = torch.zeros(size, dtype=shape.dtype, device=device)
        self.bias = torch.full((rows + 1, length), self.hidden, dtype=shape.dtype, device=device)
        self.ids = torch.zeros((rows + 1, length), dtype=torch.int64, device=device)
        self.offset = torch.arange(rows + 1, device=device) * length
        self.lengths = torch.zeros(rows + 1, dtype=torch.int64, device=device)
        self.sums = torch.zeros((rows + 1, self.hidden_size), dtype=torch.float32, device=device)
        self.tokens = torch.zeros(rows + 1, dtype=torch.int64, device=device)
        self.rows, self.length = rows, length
        self.keys = [layer[0] for layer in self.kv]
        self.values = [layer[1] for layer in self.kv]

    def ensure(self, rows: int, length: int) -> None:
        """Make room for `rows` rows of `length` tokens, keeping what is there."""
        if rows <= self.rows and length <= self.length:
            return
        kv, bias, ids, old_rows, old_length = self.kv, self.bias, self.ids, self.rows, self.length
        small = (self.lengths, self.sums, self.tokens)
        new_rows = old_rows if rows <= old_rows else max(rows, 2 * old_rows)
        new_length = old_length if length <= old_length else -(-length // LENGTH_STEP) * LENGTH_STEP
        self._allocate(new_rows, new_length)
        self.kv[:, :, :old_rows, :, :old_length] = kv[:, :, :old_rows]
        self.bias[:old_rows, :old_length] = bias[:old_rows]
        self.ids[:old_rows, :old_length] = ids[:old_rows]
        if old_length:
            self.ids[:old_rows, old_length:] = ids[:old_rows, :1]
        for new, old in zip((self.lengths, self.sums, self.tokens), small):
            new[:old_rows] = old[:old_rows]

    def set_row(self, row: int, length: int, hidden_sum: torch.Tensor) -> None:
        """Show the first `length` tokens of `row` and hide the rest; `hidden_sum` (H,) is theirs."""
        self.bias[row, :length] = 0
        self.bias[row, length:] = self.hidden
        self.lengths[row] = length
        self.sums[row] = hidden_sum

    def set_ids(self, row: int, token_ids: tuple[int, ...]) -> None:
        """Write down the context of `row` (only repetition penalties read it)."""
        self.ids[row, : len(token_ids)] = torch.tensor(token_ids, device=self.ids.device)
        self.ids[row, len(token_ids) :] = token_ids[0]

    def load(self, row: int, start: int, kv: torch.Tensor) -> int:
        """Copy a segment (layers, 2, heads, T, head_dim) into `row` from `start` on; return where it ends."""
        end = start + kv.shape[3]
        self.kv[:, :, row, :, start:end] = kv
        return end

    def extract(self, row: int, start: int, end: int) -> torch.Tensor:
        """A copy of tokens [start, end) of `row`: (layers, 2, heads, end − start, head_dim)."""
        return self.kv[:, :, row, :, start:end].clone(memory_format=torch.contiguous_format)

    def repeat(self, source: int, first: int, last: int, length: int) -> None:
        """Copy the first `length` tokens of row `source` into rows [first, last)."""
        self.kv[:, :, first:last, :, :length] = self.kv[:, :, source : source + 1, :, :length]

    def move(self, sources: list[int], targets: list[int], lengths: list[int]) -> None:
        """Move rows, keys and values up to each one's length; sources and targets are disjoint."""
        for source, target, length in zip(sources, targets, lengths):
            self.kv[:, :, target, :, :length] = self.kv[:, :, source, :, :length]
        self.copy_rows(sources, targets)

    def copy_rows(self, sources: list[int], targets: list[int]) -> None:
        """Copy everything about rows but their keys and values."""
        source = torch.tensor(sources, device=self.kv.device)
        target = torch.tensor(targets, device=self.kv.device)
        for store in (self.bias, self.ids, self.lengths, self.sums, self.tokens):
            store[target] = store[source]

    def place(self, rows: int) -> torch.Tensor:
        """Open one more slot of each of the first `rows` rows for the token it is fed; their flat indices (rows,)."""
        where = self.offset[:rows] + self.lengths[:rows]
        self.bias.view(-1).index_fill_(0, where, 0)
        return where


class _SlotLayer(CacheLayerMixin):
    """One layer's window onto the buffer, in the form that transformers models call."""

    is_sliding = False

    def __init__(self, cache: SlotCache, index: int) -> None:
        super().__init__()
        self.cache, self.index = cache, index
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """The buffer is allocated by its owner."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cache, buffer = self.cache, self.cache.buffer
        keys, values, head_dim = buffer.keys[self.index], buffer.values[self.index], key_states.shape[3]
        keys.view(-1, head_dim).index_copy_(0, cache.where, key_states.reshape(-1, head_dim).to(keys.dtype))
        values.view(-1, head_dim).index_copy_(0, cache.where, value_states.reshape(-1, head_dim).to(keys.dtype))
        rows, seen = slice(cache.first, cache.last), slice(cache.visible)
        return keys[rows, :, seen], values[rows, :, seen]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.visible, 0

    def get_seq_length(self) -> int:
        return self.cache.seen

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):
    """Rows [first, last) of a buffer as a transformers cache, aimed at one forward pass by `aim`."""

    def __init__(self, buffer: SlotBuffer) -> None:
        self.buffer = buffer
        self.first = self.last = self.visible = self.seen = 0
        self.where = torch.empty(0, dtype=torch.int64)
        self.heads = torch.arange(buffer.shape.heads, device=buffer.shape.device).unsqueeze(1)
        super().__init__(layers=[_SlotLayer(self, index) for index in range(buffer.shape.layers)])

    def aim(self, first: int, last: int, where: torch.Tensor, visible: int, seen: int) -> None:
        """Set the next pass.

        Args:
            first, last: its rows.
            where: (B, T) place of each new token in the buffer, row · length + position.
            visible: how many slots of a row attention sees.
            seen: what the model is told about how many tokens came before.
        """
        self.first, self.last, self.visible, self.seen = first, last, visible, seen
        length = self.buffer.length
        row = torch.div(where, length, rounding_mode="floor")
        position = where - row * length
        # keys and values lie head by head, which attention reads fastest: one place a head
        place = (row.unsqueeze(1) * len(self.heads) + self.heads) * length + position.unsqueeze(1)
        self.where = place.flatten()
