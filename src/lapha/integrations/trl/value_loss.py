"""The joint value loss, from the hidden states of the policy's own forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from lapha.integrations.shaped import ShapedTree, TreeRow
from lapha.latent import ValueHead


def value_columns(rows: list[TreeRow], device: torch.device) -> dict[str, torch.Tensor]:
    """Rows' value targets as tensors that travel with TRL's batch.

    Returns:
        ``value_ends`` (B, K) int64, lengths in tokens of the states along each row's path, 0 where there is none;
        ``value_targets`` (B, K) float32, NaN where there is nothing to learn.
    """
    width = max(len(row.value_ends) for row in rows)
    ends = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), float("nan"))
    for index, row in enumerate(rows):
        ends[index, : len(row.value_ends)] = torch.tensor(row.value_ends)
        targets[index, : len(row.value_targets)] = torch.tensor(row.value_targets)
    return {"value_ends": ends.to(device), "value_targets": targets.to(device)}


def tree_columns(
    trees: Sequence[ShapedTree], rows: int, pad: int, generator: torch.Generator, device: torch.device
) -> dict[str, torch.Tensor]:
    """`rows` root-to-leaf contexts of `trees`, drawn at random, with every state's target on them.

    A state that lies on several of the drawn paths keeps its target on one of them, so that each counts once. Fewer
    paths than rows leave rows without targets.

    Returns:
        ``tree_ids`` and ``tree_mask`` (rows, L) int64, right-padded; ``tree_ends`` (rows, K) int64 and
        ``tree_targets`` (rows, K) float32, as `value_columns` has them.
    """
    paths = [(tree, node) for tree in trees for node, below in enumerate(tree.tree.children) if not below]
    order = torch.randperm(len(paths), generator=generator)[:rows].tolist()
    contexts: list[list[int]] = []
    ends: list[list[int]] = []
    targets: list[list[float]] = []
    counted: set[tuple[int, int]] = set()
    for shaped, leaf in (paths[index] for index in order):
        context: list[int] = []
        ends.append([])
        targets.append([])
        for node in shaped.tree.path(leaf):
            context += shaped.tree.tokens[node]
            ends[-1].append(len(context))
            fresh = (id(shaped), node) not in counted
            counted.add((id(shaped), node))
            targets[-1].append(float(shaped.value_target[node]) if fresh else math.nan)
        contexts.append(context)
    missing = rows - len(contexts)
    contexts += [[pad]] * missing
    return {
        "tree_ids": _padded(contexts, pad).to(device),
        "tree_mask": _padded([[1] * len(context) for context in contexts], 0).to(device),
        "tree_ends": _padded(ends + [[0]] * missing, 0).to(device),
        "tree_targets": _padded(targets + [[math.nan]] * missing, math.nan).to(device),
    }


def _padded(values: list[list[Any]], fill: float) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in values], batch_first=True, padding_value=fill)


def prefix_logits(token_scores: torch.Tensor, attention_mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Value logits of prefixes of each sequence, from the head's per-token scores.

    The head is linear, so the logit of a mean-pooled prefix is the mean of its tokens' scores: no (B, L, H) sum is
    ever formed.

    Args:
        token_scores: (B, L) w·h_t + b of every token.
        attention_mask: (B, L), 1 at real tokens; padding may stand on either side.
        ends: (B, K) prefix lengths in real tokens; 0 gives 0.

    Returns:
        (B, K) float32 logits.
    """
    mask = attention_mask.to(torch.bool)
    sums = torch.where(mask, token_scores.float(), 0.0).cumsum(dim=1)
    first = mask.to(torch.int8).argmax(dim=1, keepdim=True)
    column = (first + ends - 1).clamp(min=0, max=sums.shape[1] - 1)
    return torch.where(ends > 0, sums.gather(1, column) / ends.clamp(min=1), 0.0)


def prefix_squared_errors(
    head: ValueHead,
    hidden: torch.Tensor,
    attention_mask: torch.Tensor,
    ends: torch.Tensor,
    targets: torch.Tensor,
    grad_to_backbone: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared errors of v̂ over every state along each row's path, summed.

    Args:
        head: value head whose ``logits`` maps (…, H) to (…,).
        hidden: (B, L, H) last hidden states.
        attention_mask: (B, L).
        ends, targets: see `value_columns`.
        grad_to_backbone: whether the gradient flows on into `hidden`.

    Returns:
        (total, count): the sum of squared errors, which stays in the graph even without targets, and the number of
        targets. The caller divides, so that it can count over all processes.
    """
    scores = head.logits(hidden if grad_to_backbone else hidden.detach())
    return squared_errors(scores, attention_mask, ends, targets)


def squared_errors(
    token_scores: torch.Tensor, attention_mask: torch.Tensor, ends: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`prefix_squared_errors` of the head's (B, L) scores of the tokens."""
    predicted = prefix_logits(token_scores, attention_mask, ends).sigmoid()
    known = ~torch.isnan(targets)
    squared = torch.where(known, predicted - torch.nan_to_num(targets), 0.0).square()
    return squared.sum(), known.sum()
