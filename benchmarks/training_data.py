"""Rows, models and settings of the training benchmark: the same for every contestant."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lapha.integrations import TreeRow


@dataclass(frozen=True)
class TrainingCase:
    """One model and one batch.

    Attributes:
        hidden, intermediate, layers, heads, kv_heads, vocabulary: of a Qwen2 with tied embeddings.
        groups, breadth: sibling groups of a step, and rows of each; a group's rows share their prompt.
        prompt, completion: (least, most) tokens, drawn uniformly.
        beta: KL coefficient; above 0, a reference model's pass is part of the step.
        bf16: mixed precision, for every contestant.
        device: torch device.
        seed: of the weights and the rows.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    groups: int
    breadth: int
    prompt: tuple[int, int]
    completion: tuple[int, int]
    beta: float = 1e-8
    bf16: bool = False
    device: str = "cpu"
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# Qwen2.5-0.5B's shape; and one of 4.9 M parameters, of which the vocabulary, as in small models, has the most.
HALF_BILLION = TrainingCase(896, 4864, 24, 14, 2, 151936, 8, 6, (800, 1536), (200, 512), bf16=True, device="cuda")
FIVE_MILLION = TrainingCase(128, 384, 4, 4, 2, 32000, 8, 6, (192, 352), (64, 160))
SMOKE = TrainingCase(32, 64, 2, 2, 1, 512, 2, 3, (12, 24), (4, 9))


def make_model(case: TrainingCase) -> Any:
    """A causal LM with random weights, in float32 on the case's device."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(case.seed)
    config = Qwen2Config(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=case.intermediate,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).to(case.device)


def make_rows(case: TrainingCase, tokens: int) -> list[TreeRow]:
    """`groups` × `breadth` training rows with token ids below `tokens`, as a tree rollout hands them out.

    Every row's value targets are the states on its path: the root, two states inside the prompt, and the row's own.
    """
    rng = random.Random(case.seed)
    rows = []
    for group in range(case.groups):
        prompt = [rng.randrange(tokens) for _ in range(rng.randint(*case.prompt))]
        inner = sorted(rng.sample(range(len(prompt) // 2, len(prompt)), 2))
        rewards = torch.tensor([rng.random() for _ in range(case.breadth)])
        advantages = (rewards - rewards.mean()) / (rewards.std(unbiased=False) + 1e-4)
        for reward, advantage in zip(rewards.tolist(), advantages.tolist()):
            completion = [rng.randrange(tokens) for _ in range(rng.randint(*case.completion))]
            ends = [len(prompt) // 2, *inner, len(prompt) + len(completion)]
            targets = [0.0, 0.3, 0.5, rng.random()]
            logprobs = [0.0] * len(completion)
            rows.append(TreeRow(prompt, completion, logprobs, reward, advantage, ends, targets, f"question {group}"))
    return rows


def count_tokens(rows: list[TreeRow]) -> int:
    """Tokens of all sequences, prompts counted once for each."""
    return sum(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
