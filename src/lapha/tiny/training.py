"""One joint run: policy from imperfect demonstrations, and value heads on the pooled states of the same forward pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lapha._imports import require
from lapha.tiny.encoding import Batch, Vocabulary, encode
from lapha.tiny.walk import NUMBERS, Demonstrator, Rollouts, Walks, generate_walks, roll_out

TARGETS = ("success_rate", "potential")
_CHUNK = 4096  # problems generated at a time


@dataclass(frozen=True)
class TrainingConfig:
    """What a run depends on; with the seed it decides every step.

    Attributes:
        steps: optimiser steps.
        problems: problems a step, each with `rollouts` demonstrations.
        rollouts: demonstrations of a problem.
        skill, habit: the demonstrator's, see `lapha.tiny.walk.Demonstrator`.
        learning_rate: peak, after a linear warm-up over `warmup` steps, with a cosine to a twentieth of it.
        value_weight: weight of each head's mean squared error beside the policy's cross-entropy.
        local_weight: weight of an auxiliary success-rate head on the last token alone, dropped after training.
        seed: of the weights and of the data.
    """

    steps: int = 1400
    problems: int = 16
    rollouts: int = 8
    skill: float = 0.45
    habit: float = 0.4
    learning_rate: float = 3e-3
    optimizer: str = "muon"
    warmup: int = 40
    value_weight: float = 2.0
    local_weight: float = 1.0
    seed: int = 0


class TinyModel(nn.Module):
    """The language model with the heads that are trained on it.

    Attributes:
        lm: the `LlamaForCausalLM`.
        heads: linear heads on the pooled state, by target; ``local`` reads the last token alone.
        move_ids: (2, 4) ids of the moves as the first of a step and behind others.
        verdict_ids: (2,) ids of what takes a move back and what accepts it.
    """

    def __init__(self, vocabulary: Vocabulary, seed: int) -> None:
        super().__init__()
        transformers = require("transformers", "llm")
        torch.manual_seed(seed)
        self.lm = transformers.LlamaForCausalLM(tiny_config(vocabulary.size))
        self.move_ids: torch.Tensor
        self.register_buffer("move_ids", torch.from_numpy(vocabulary.move), persistent=False)
        self.verdict_ids: torch.Tensor
        self.register_buffer(
            "verdict_ids", torch.tensor([vocabulary.taken_back, vocabulary.think_end]), persistent=False
        )
        with torch.no_grad():
            table = self.lm.get_input_embeddings().weight
            table[torch.from_numpy(vocabulary.number)] = number_embeddings(table.shape[1], float(table.std()))
        hidden = self.lm.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, 1) for name in (*TARGETS, "local")})
        for parameter in self.heads.parameters():
            nn.init.zeros_(parameter)


def number_embeddings(hidden: int, deviation: float) -> torch.Tensor:
    """(NUMBERS, hidden) first embeddings of the numbers: waves over the tens and over the ones, in a random basis.

    One more ten or one is then the same rotation for every number, which saves most of the time that learning to add
    takes from random embeddings.
    """
    digits = torch.arange(10)
    waves = [(digits - 4.5) / 4.5]
    for frequency in range(1, 6):
        angle = 2 * math.pi * frequency * digits / 10
        waves += [angle.cos(), angle.sin()]
    features = torch.stack(waves, dim=1)
    number = torch.arange(NUMBERS)
    both = torch.cat([features[number // 10], features[number % 10]], dim=1)
    basis = torch.linalg.qr(torch.randn(hidden, both.shape[1]))[0]
    rows = both @ basis.T + 0.1 * torch.randn(NUMBERS, hidden)
    return rows * (deviation / rows.std())


def tiny_config(vocabulary_size: int) -> Any:
    """The `LlamaConfig` of the embedded policy: 4 layers of 128, about 0.9 M parameters."""
    transformers = require("transformers", "llm")
    return transformers.LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        attn_implementation="sdpa",
    )


def pooled_states(hidden: torch.Tensor, state_at: torch.Tensor) -> torch.Tensor:
    """(B, S, H) mean of `hidden` (B, L, H) over all tokens up to and including each of `state_at` (B, S)."""
    total = hidden.float().cumsum(1)
    at = state_at[:, :, None].expand(-1, -1, hidden.shape[2])
    return total.gather(1, at) / (state_at[:, :, None] + 1)


def hyperbolic_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(…, N, M) exact distances on the unit-curvature ball between exp₀(a) (…, N, H) and exp₀(b) (…, M, H)."""
    radius_a, radius_b = a.norm(dim=-1), b.norm(dim=-1)
    unit_a, unit_b = nn.functional.normalize(a, dim=-1), nn.functional.normalize(b, dim=-1)
    apart = torch.cdist(unit_a, unit_b, compute_mode="donot_use_mm_for_euclid_dist").square()
    radial = torch.sinh(radius_a[..., :, None] - radius_b[..., None, :]).square()
    angular = 0.25 * torch.sinh(2 * radius_a)[..., :, None] * torch.sinh(2 * radius_b)[..., None, :] * apart
    return 2 * torch.asinh((radial + angular).sqrt())


def potentials(pooled: torch.Tensor, root: torch.Tensor, goals: torch.Tensor, is_goal: torch.Tensor) -> torch.Tensor:
    """(P, N) the potential V of pooled states (P, N, H), root-centred, towards goal states (P, G, H) where `is_goal`.

    Problems without a goal get zeros.
    """
    scale = math.sqrt(pooled.shape[-1])
    points, goal_points = (pooled - root[:, None]) / scale, (goals - root[:, None]) / scale
    to_goal = hyperbolic_distance(points, goal_points).masked_fill(~is_goal[:, None, :], torch.inf).amin(2)
    to_root = 2 * points.norm(dim=-1)
    return torch.where(is_goal.any(1, keepdim=True), to_root / (to_root + to_goal + 1e-8), 0.0)


def potential_targets(pooled: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, S) potential of every state, and whether its problem has a correct leaf at all."""
    size, states, hidden = pooled.shape
    leaf = pooled.gather(1, batch.length[:, None, None].expand(-1, 1, hidden))[:, 0].view(-1, batch.rollouts, hidden)
    correct = batch.correct.view(-1, batch.rollouts)
    nodes = pooled.view(len(leaf), batch.rollouts * states, hidden)
    value = potentials(nodes, pooled[:: batch.rollouts, 0], leaf, correct)
    has_goal = correct.any(1).repeat_interleave(batch.rollouts)
    return value.view(size, states), has_goal[:, None].expand(-1, states)


def tries_of(hidden: torch.Tensor, batch: Batch, move_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The T moves tried in a batch.

    Args:
        hidden: (B, L, H).
        batch: a batch of demonstrations.
        move_ids: (2, 4) ids of the moves as the first of a step and behind others.

    Returns:
        (T, H) hidden states that predict them, (T, 4) ids of the moves that can stand there, and (T, 4) the
        demonstrator's probabilities of each.
    """
    rows, step, attempt = batch.move_at.nonzero(as_tuple=True)
    states = hidden[rows, batch.move_at[rows, step, attempt]]
    return states, move_ids[attempt.clamp(max=1)], batch.move_chances[rows, step, attempt]


def losses(model: TinyModel, forward: Callable[..., Any], batch: Batch) -> dict[str, torch.Tensor]:
    """Cross-entropy of text and of moves, and the mean squared error of each head."""
    hidden = forward(input_ids=batch.ids, use_cache=False).last_hidden_state
    embedding = model.lm.lm_head.weight
    learned = batch.labels >= 0
    label = batch.labels[learned]
    token_loss = nn.functional.cross_entropy(nn.functional.linear(hidden[learned], embedding), label, reduction="none")
    verdict = torch.isin(label, model.verdict_ids)
    at_move, ids, truth = tries_of(hidden, batch, model.move_ids)
    log_chance = nn.functional.linear(at_move, embedding).log_softmax(-1).gather(1, ids)
    move_loss = -(truth * log_chance).sum(-1).mean()

    pooled = pooled_states(hidden, batch.state_at)
    with torch.no_grad():
        potential, has_goal = potential_targets(pooled.detach(), batch)
    last = hidden.gather(1, batch.state_at[:, :, None].expand(-1, -1, hidden.shape[2]))
    rows = (
        ("success_rate", pooled, batch.chance, batch.state_real),
        ("potential", pooled, potential, batch.state_real & has_goal),
        ("local", last, batch.chance, batch.state_real),
    )
    result = {"text": token_loss.mean(), "verdict": token_loss[verdict].mean(), "move": move_loss}
    for name, states, target, real in rows:
        predicted = torch.sigmoid(model.heads[name](states)[..., 0])
        result[name] = ((predicted - target).square() * real).sum() / real.sum().clamp(min=1)
    return result


def make_optimizers(model: TinyModel, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.lm.model.layers.parameters() if p.dim() == 2]
    heads = list(model.heads.parameters())
    taken = {id(p) for p in (*matrices, *heads)}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups = [
        {"params": rest, "lr": config.learning_rate, "weight_decay": 0.01},
        {"params": heads, "lr": 3 * config.learning_rate, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        groups.append({"params": matrices, "lr": config.learning_rate, "weight_decay": 0.05})
        return [torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)]
    muon = torch.optim.Muon(matrices, lr=config.learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True), muon]


def schedule(step: int, config: TrainingConfig) -> float:
    """Factor of the learning rate at `step`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def demonstrations(config: TrainingConfig) -> Iterator[tuple[Walks, Rollouts]]:
    """Endless (walks, rollouts) of the training split, `problems` at a time, decided by the seed."""
    rng = np.random.default_rng([config.seed, 1])
    while True:
        walks = generate_walks(_CHUNK, rng)
        for start in range(0, _CHUNK - config.problems + 1, config.problems):
            part = walks.take(np.arange(start, start + config.problems))
            yield part, roll_out(part, config.rollouts, Demonstrator(config.skill, config.habit), rng)


def train(
    config: TrainingConfig,
    tokenizer: Any,
    *,
    minutes: float = math.inf,
    compiled: bool = False,
    report: Callable[[int, dict[str, float], TinyModel], None] | None = None,
) -> tuple[TinyModel, list[dict[str, float]]]:
    """Train from scratch.

    Args:
        config: the run; with its seed it decides every step.
        tokenizer: from `build_tokenizer`.
        minutes: cuts the run short; so does Ctrl-C. What was trained until then is returned.
        compiled: run the model through torch.compile. Rounding then differs from a run without.
        report: called after each step with its number from 0, its losses and the model.

    Returns:
        The model, and each step's losses: ``loss`` is their weighted sum.
    """
    vocabulary = Vocabulary(tokenizer)
    model = TinyModel(vocabulary, config.seed)
    forward = torch.compile(model.lm.model) if compiled else model.lm.model
    optimizers = make_optimizers(model, config)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    weights = {"text": 1.0, "verdict": 1.0, "move": 1.0, "local": config.local_weight} | dict.fromkeys(
        TARGETS, config.value_weight
    )
    history: list[dict[str, float]] = []
    began = time.monotonic()
    try:
        for step, (walks, rollouts) in zip(range(config.steps), demonstrations(config)):
            factor = schedule(step, config)
            for optimizer, peak in zip(optimizers, peaks):
                for group, rate in zip(optimizer.param_groups, peak):
                    group["lr"] = rate * factor
            parts = losses(model, forward, encode(walks, rollouts, vocabulary))
            total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
            total.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            history.append({name: float(part.detach()) for name, part in {"loss": total, **parts}.items()})
            if report is not None:
                report(step, history[-1], model)
            if time.monotonic() - began > 60 * minutes:
                break
    except KeyboardInterrupt:
        if not history:
            raise
    return model, history
