"""One cell of a study: a policy trained by one arm with one learning rate and one seed, and its curve."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from benchmarks.learning.arms import ARMS, Arm, GradedTree, advantages
from benchmarks.learning.growing import accuracy, environment_for, grow, radius_report
from benchmarks.learning.policies import load_policy
from benchmarks.learning.tasks import FAMILIES
from lapha.engines import TransformersEngine
from lapha.shaping import ShapingConfig, credit
from lapha.shaping.audit import Auditor

CLIP_LOW, CLIP_HIGH = 0.2, 0.28
CLIP_SEQUENCE = 3e-3


@dataclass(frozen=True)
class Cell:
    """Everything that decides a run.

    Attributes:
        study, phase: which study, and ``"tune"`` or ``"final"``.
        family, policy, arm: names in `FAMILIES`, of a start policy (see `policies`), and in `ARMS`.
        learning_rate: of AdamW, constant.
        seed: of questions, sampling and everything else. Tuning and final seeds differ.
        steps: updates. Each takes `questions` questions.
        questions: a step.
        chains: episodes of a question of an arm on chains.
        simulations, breadth: of a tree.
        tokens: end after the update that reaches so many generated tokens; None for `steps` alone.
        evaluate_every: updates between two points of the curve.
        evaluated: held-out questions at each point.
    """

    study: str
    phase: str
    family: str
    policy: str
    arm: str
    learning_rate: float
    seed: int
    steps: int = 30
    questions: int = 24
    chains: int = 10
    simulations: int = 12
    breadth: int = 4
    tokens: int | None = None
    evaluate_every: int = 3
    evaluated: int = 200

    @property
    def name(self) -> str:
        """Names the cell in its study's result file."""
        return f"{self.phase}/{self.family}/{self.policy}/{self.arm}/lr{self.learning_rate:g}/seed{self.seed}"


def run_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train and measure one cell; a run that was cut goes on from its last point of the curve in `folder`."""
    torch.manual_seed(cell.seed)
    family, arm = FAMILIES[cell.family], ARMS[cell.arm]
    model, tokenizer, head = load_policy(cell.policy, cell.family)
    environment = environment_for(tokenizer, family)
    trained = [p for p in model.parameters() if p.requires_grad]
    trained += list(head.parameters()) if arm.value_loss else []
    optimizer = torch.optim.AdamW(trained, lr=cell.learning_rate, weight_decay=0.0)
    asked = family.questions(cell.steps * cell.questions, seed=cell.seed, split="train")
    held_out = family.questions(cell.evaluated, seed=10_000, split="heldout")
    auditor = Auditor(ShapingConfig(reward=arm.reward, failed_leaves=arm.failed_leaves))
    engine = TransformersEngine(model, tokenizer, head)
    state = _State.load(folder / "state.pt", model, head, optimizer)
    while state.step <= cell.steps:
        at_end = state.step == cell.steps or (cell.tokens is not None and state.generated >= cell.tokens)
        if state.step % cell.evaluate_every == 0 or at_end:
            sampled = accuracy(engine, environment, family, held_out, seed=77, greedy=False)
            greedy = accuracy(engine, environment, family, held_out, seed=77, greedy=True)
            state.point(sampled, greedy)
            state.save(folder / "state.pt", model, head, optimizer)
        if at_end:
            break
        began = time.perf_counter()
        batch = asked[state.step * cell.questions : (state.step + 1) * cell.questions]
        trees = grow(
            arm, engine, environment, family, batch, seed=1_000_003 * cell.seed + state.step,
            chains=cell.chains, simulations=cell.simulations, breadth=cell.breadth,
        )  # fmt: skip
        grown = time.perf_counter()
        per_tree, found = advantages(arm, trees, auditor)
        used = update(model, head, optimizer, tokenizer, arm, trees, per_tree)
        engine.invalidate()
        state.count(trees, used, found, seconds=(grown - began, time.perf_counter() - grown))
    engine.close()
    return {"cell": cell.name, **asdict(cell), **state.row()}


class _State:
    """What a cell has done so far; saved with every point of its curve."""

    def __init__(self) -> None:
        self.step = 0
        self.generated = self.trained = 0
        self.curve: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self.seconds = [0.0, 0.0]

    def count(
        self, trees: Sequence[GradedTree], trained: int, found: dict[str, Any], seconds: tuple[float, float]
    ) -> None:
        self.step += 1
        self.generated += sum(tree.tree.sampled_tokens for tree in trees)
        self.trained += trained
        self.seconds = [a + b for a, b in zip(self.seconds, seconds, strict=True)]
        scores = torch.cat([tree.score[tree.terminal] for tree in trees])
        solved = sum(bool((tree.score[tree.terminal] >= 0.5).any()) for tree in trees) / len(trees)
        row = {"leaf_accuracy": round(float(scores.nanmean()), 4), "solved": round(solved, 4)}
        self.log.append({**row, "radius": radius_report(trees), **found})

    def point(self, sampled: list[float], greedy: list[float]) -> None:
        if self.curve and self.curve[-1]["step"] == self.step:
            return
        self.curve.append(
            {
                "step": self.step,
                "generated": self.generated,
                "trained": self.trained,
                "sampled": round(float(np.mean(sampled)), 4),
                "greedy": round(float(np.mean(greedy)), 4),
                "bits": "".join(str(int(score >= 0.5)) for score in sampled),  # for pairing over problems
            }
        )

    def row(self) -> dict[str, Any]:
        """What goes into the result file."""
        grow_s, update_s = self.seconds
        return {
            "curve": self.curve,
            "log": self.log,
            "generated": self.generated,
            "trained": self.trained,
            "rollout_seconds": round(grow_s, 2),
            "update_seconds": round(update_s, 2),
        }

    def save(self, path: Path, model: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_suffix(".part")
        weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        torch.save(
            {"own": self.__dict__, "model": weights, "head": head.state_dict(), "optimizer": optimizer.state_dict()},
            trial,
        )
        trial.replace(path)

    @classmethod
    def load(cls, path: Path, model: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer) -> _State:
        state = cls()
        if path.is_file():
            saved = torch.load(path, weights_only=False)
            state.__dict__.update(saved["own"])
            model.load_state_dict(saved["model"], strict=False)
            head.load_state_dict(saved["head"])
            optimizer.load_state_dict(saved["optimizer"])
        return state


@dataclass(frozen=True)
class _Row:
    context: list[int]
    sampled: int  # of its last tokens, how many were sampled
    logprobs: tuple[float, ...]
    advantage: float
    target: float  # success rate of the state, NaN where not known


def rows_of(trees: Sequence[GradedTree], per_tree: Sequence[Tensor], with_values: bool) -> Iterator[_Row]:
    """One row for each step that has an advantage other than 0 (or, with values, a target)."""
    for tree, advantage in zip(trees, per_tree, strict=True):
        rate = credit.success(tree.rollouts)
        for node in range(1, len(tree.tree)):
            a, target = float(advantage[node].nan_to_num(0.0)), float(rate[node]) if with_values else math.nan
            sampled = len(tree.tree.sampled_ids(node))
            if sampled and (a != 0 or not math.isnan(target)):
                yield _Row(list(tree.tree.context_ids(node)), sampled, tree.tree.logprobs[node], a, target)


def update(
    model: Any,
    head: Any,
    optimizer: torch.optim.Optimizer,
    tokenizer: Any,
    arm: Arm,
    trees: Sequence[GradedTree],
    per_tree: Sequence[Tensor],
    chunk: int = 64,
) -> int:
    """One optimizer step over all rows, a token's loss weighing the same in all of them. Returns the tokens trained on."""
    rows = sorted(rows_of(trees, per_tree, arm.value_loss), key=lambda row: len(row.context))
    tokens = sum(row.sampled for row in rows if row.advantage != 0)
    states = sum(not math.isnan(row.target) for row in rows)
    if not tokens and not states:
        return 0
    optimizer.zero_grad(set_to_none=True)
    for start in range(0, len(rows), chunk):
        policy, value = losses(model, head, tokenizer.pad_token_id, arm, rows[start : start + chunk])
        total = policy / max(tokens, 1) + (value / max(states, 1) if arm.value_loss else 0.0)
        total.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return tokens


def losses(model: Any, head: Any, pad: int, arm: Arm, rows: Sequence[_Row]) -> tuple[Tensor, Tensor]:
    """Sums over the rows' sampled tokens of the clipped policy loss, and over their states of the value loss."""
    device = model.device
    ids = pad_sequence([torch.tensor(row.context) for row in rows], batch_first=True, padding_value=pad).to(device)
    length = torch.tensor([len(row.context) for row in rows], device=device)
    count = torch.tensor([row.sampled for row in rows], device=device)
    position = torch.arange(ids.shape[1], device=device)
    real = position < length[:, None]
    hidden = model.get_decoder()(input_ids=ids, attention_mask=real.long(), use_cache=False).last_hidden_state
    sampled = (real & (position >= (length - count)[:, None]))[:, 1:]
    logits = model.get_output_embeddings()(hidden[:, :-1][sampled]).float()
    new = -nn.functional.cross_entropy(logits, ids[:, 1:][sampled], reduction="none")
    old = torch.tensor([p for row in rows for p in row.logprobs], device=device)
    owner = torch.repeat_interleave(torch.arange(len(rows), device=device), count)
    log_ratio = new - old
    low, high = 1 - CLIP_LOW, 1 + CLIP_HIGH
    if arm.clip == "sequence":
        mean = torch.zeros(len(rows), device=device).index_add(0, owner, log_ratio) / count
        log_ratio = mean[owner]
        low, high = 1 - CLIP_SEQUENCE, 1 + CLIP_SEQUENCE
    ratio = log_ratio.exp()
    advantage = torch.tensor([row.advantage for row in rows], device=device)[owner]
    policy = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage).sum()
    if not arm.value_loss:
        return policy, policy.new_zeros(())
    pooled = (hidden * real[..., None]).sum(1) / length[:, None]
    target = torch.tensor([row.target for row in rows], device=device)
    known = ~target.isnan()
    return policy, (head(pooled)[known] - target[known]).square().sum()
