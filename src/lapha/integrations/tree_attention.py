"""Attention over packed trees, whose cost grows with the pairs of tokens that may see each other.

In depth-first order the tokens below a step are one range. So attention is a causal block for each step and, for each step
with something below it, one full rectangle: the range below against the step itself. On a CPU both are calls of torch's own
flash kernel, merged by their log-sum-exp; the backward pass calls its backward kernel on the same blocks with the merged
result, which gives each block's share exactly. On a GPU it is FlexAttention with the mask k ≤ q < reach[k].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lapha.integrations.tree_packing import PackedTrees

NAME = "lapha_tree"
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Segments = list[tuple[int, int, int]]


class SegmentAttention(torch.autograd.Function):
    """softmax(q·kᵀ·scale)·v over packed trees on a CPU; q, k, v are (1, heads, L, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float) -> Tensor:
        wide = torch.promote_types(q.dtype, torch.float32)
        out = torch.zeros(q.shape, dtype=wide)
        lse = torch.full(q.shape[:3], -torch.inf, dtype=wide)

        def merge(rows: slice, part: Tensor, part_lse: Tensor) -> None:
            merged = torch.logaddexp(lse[:, :, rows], part_lse)
            out[:, :, rows] *= (lse[:, :, rows] - merged).exp()[..., None]
            out[:, :, rows] += part * (part_lse - merged).exp()[..., None]
            lse[:, :, rows] = merged

        for rows, columns, causal in _blocks(segments):
            merge(rows, *_flash(q[:, :, rows], k[:, :, columns], v[:, :, columns], 0.0, causal, scale=scale))
        result = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, lse)
        ctx.segments, ctx.scale = segments, scale
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[override]
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = (torch.zeros(t.shape, dtype=lse.dtype) for t in (q, k, v))  # sums of many blocks
        for rows, columns, causal in _blocks(ctx.segments):
            part = _flash_backward(
                gradient[:, :, rows].contiguous(), q[:, :, rows], k[:, :, columns], v[:, :, columns],
                out[:, :, rows], lse[:, :, rows], 0.0, causal, scale=ctx.scale,
            )  # fmt: skip
            dq[:, :, rows] += part[0]
            dk[:, :, columns] += part[1]
            dv[:, :, columns] += part[2]
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None


def _blocks(segments: Segments) -> list[tuple[slice, slice, bool]]:
    """(queries, keys, causal) of every block with something in it."""
    blocks = []
    for start, stop, reach in segments:
        own = slice(start, stop)
        if stop > start:
            blocks.append((own, own, True))
            if reach > stop:
                blocks.append((slice(stop, reach), own, False))
    return blocks


def flex_tree_attention(query: Tensor, key: Tensor, value: Tensor, tree: PackedTrees, scale: float) -> Tensor:
    """The same by FlexAttention, compiled on a GPU; key and value may have fewer heads."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if "mask" not in tree.cache:
        reach = tree.reach()

        def visible(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (k <= q) & (q < reach[k])

        length = len(tree)
        tree.cache["mask"] = create_block_mask(visible, None, None, length, length, device=query.device)
    attention: Any = _compiled(flex_attention) if query.is_cuda else flex_attention
    found: Tensor = attention(query, key, value, block_mask=tree.cache["mask"], scale=scale, enable_gqa=True)
    return found


_compiled_functions: dict[Any, Any] = {}


def _compiled(function: Any) -> Any:
    if function not in _compiled_functions:
        _compiled_functions[function] = torch.compile(function, dynamic=True)
    return _compiled_functions[function]


def _autocast(tensor: Tensor) -> Tensor:
    """What autocast hands to torch's own attention, which it does not know this one to be.

    Under it rotated queries and keys are float32 and values are not.
    """
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def tree_attention_forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' attention function: that of ``sdpa``, except where a pass is given ``tree=`` (a `PackedTrees`)."""
    tree: PackedTrees | None = kwargs.pop("tree", None)
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    query, key, value = (_autocast(tensor) for tensor in (query, key, value))
    if query.device.type == "cpu":
        groups = getattr(module, "num_key_value_groups", 1)
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        out = SegmentAttention.apply(query, key, value, tree.segments, scale)
    else:
        out = flex_tree_attention(query, key, value, tree, scale)
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Make the function known to transformers under `NAME`."""
    AttentionInterface.register(NAME, tree_attention_forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)
