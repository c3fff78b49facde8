"""Sibling rows packed so that the prompt they share goes through the model once.

The rows of a sibling group have the same prompt. Row by row, a step of a few hundred tokens drags a prompt of a thousand
through every layer, forward and backward, `breadth` times. Packed, a group is one sequence: the prompt, then the
completions side by side; each completion sees the prompt and itself, and its positions go on from the prompt's end. The
numbers are those of the rows one by one (up to rounding), for any causal LM that takes position ids and a 4-D mask.

The prompt's last token predicts the first token of every completion. It stands before each of them, so that every
position predicts one token: ``p₁ … pₙ₋₁ | pₙ a₁ a₂ … | pₙ b₁ b₂ … | …``
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lapha._checks import check

NOTHING = -100
_PROMPT, _PADDING = 0, -1


@dataclass(frozen=True)
class PackedGroups:
    """Groups of rows, one packed sequence each; G groups, padded to L tokens.

    Attributes:
        input_ids: (G, L) int64.
        position_ids: (G, L) int64.
        branch: (G, L) int64: 0 in the shared prompt, j in the j-th completion, −1 in padding.
        next_ids: (G, L) int64: the completion token that a position predicts, −100 where it predicts none.
        index: (B, P + C) int64: where the rows' own columns lie in the flattened (G·L) sequences; padding points at 0.
        prompt_columns: P.
    """

    input_ids: Tensor
    position_ids: Tensor
    branch: Tensor
    next_ids: Tensor
    index: Tensor
    prompt_columns: int

    def attention_mask(self, dtype: torch.dtype = torch.bool) -> Tensor:
        """(G, 1, L, L): what each position may see, as bool (for SDPA) or to be added to the scores (for eager)."""
        length = self.branch.shape[1]
        query, key = self.branch[:, :, None], self.branch[:, None, :]
        before = torch.ones(length, length, dtype=torch.bool, device=self.branch.device).tril()
        seen = before & ((key == _PROMPT) | (key == query)) & (query != _PADDING)
        seen |= torch.eye(length, dtype=torch.bool, device=self.branch.device)  # padding sees itself: no row is empty
        if dtype == torch.bool:
            return seen[:, None]
        blocked = torch.finfo(dtype).min
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, blocked)[:, None]

    def unpack(self, values: Tensor) -> Tensor:
        """(G, L, …) at packed positions → (B, P + C, …) at the rows' own; what padding gets has no meaning."""
        return values.flatten(0, 1)[self.index]

    def completion_scores(self, values: Tensor) -> Tensor:
        """(G, L) numbers of what each position predicts → (B, C) of the rows' completion tokens."""
        return self.unpack(values)[:, self.prompt_columns - 1 : -1]


def pack_groups(
    prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor
) -> PackedGroups:
    """Pack neighbouring rows that have the same prompt.

    Args:
        prompt_ids, prompt_mask: (B, P), padded on the left, at least one token each.
        completion_ids, completion_mask: (B, C), padded on the right.

    Raises:
        ValueError: shapes that do not match, an empty prompt, or padding on the other side.
    """
    rows, device = len(prompt_ids), prompt_ids.device
    check(prompt_mask.shape == prompt_ids.shape, "prompt_mask", f"{tuple(prompt_ids.shape)}", tuple(prompt_mask.shape))
    check(completion_ids.shape[0] == rows, "completion_ids", f"{rows} rows", len(completion_ids))
    same = completion_mask.shape == completion_ids.shape
    check(same, "completion_mask", f"{tuple(completion_ids.shape)}", tuple(completion_mask.shape))
    left = bool((prompt_mask[:, 1:] >= prompt_mask[:, :-1]).all()) and bool(prompt_mask[:, -1].all())
    check(left, "prompt_mask", "ones at the end of every row, zeros before them", "others")
    right = bool((completion_mask[:, 1:] <= completion_mask[:, :-1]).all())
    check(right, "completion_mask", "ones at the start of every row, zeros after them", "others")

    # Lists on the CPU: one copy from the device, and the packing itself is a few slices a row.
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(prompt_ids.cpu(), prompt_mask.cpu())]
    completions = [ids[mask.bool()].tolist() for ids, mask in zip(completion_ids.cpu(), completion_mask.cpu())]
    groups: list[list[int]] = []
    for row in range(rows):
        if groups and prompts[row] == prompts[groups[-1][0]]:
            groups[-1].append(row)
        else:
            groups.append([row])

    width = max(len(prompts[g[0]]) - 1 + sum(1 + len(completions[row]) for row in g) for g in groups)
    shape = (len(groups), width)
    input_ids, position_ids = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    branch, next_ids = torch.full(shape, _PADDING), torch.full(shape, NOTHING)
    columns = prompt_ids.shape[1]
    index = torch.zeros(rows, columns + completion_ids.shape[1], dtype=torch.long)
    for number, group in enumerate(groups):
        prompt = prompts[group[0]]
        shared = len(prompt) - 1
        input_ids[number, :shared] = torch.tensor(prompt[:-1], dtype=torch.long)
        position_ids[number, :shared] = torch.arange(shared)
        branch[number, :shared] = _PROMPT
        start = shared
        for member, row in enumerate(group, start=1):
            completion = completions[row]
            end = start + 1 + len(completion)
            input_ids[number, start:end] = torch.tensor([prompt[-1], *completion])
            position_ids[number, start:end] = torch.arange(shared, shared + 1 + len(completion))
            branch[number, start:end] = member
            next_ids[number, start : end - 1] = torch.tensor(completion, dtype=torch.long)
            index[row, columns - len(prompt) : columns - 1] = number * width + torch.arange(shared)
            index[row, columns - 1 : columns + len(completion)] = number * width + torch.arange(start, end)
            start = end
    return PackedGroups(
        input_ids.to(device),
        position_ids.to(device),
        branch.to(device),
        next_ids.to(device),
        index.to(device),
        prompt_columns=columns,
    )
