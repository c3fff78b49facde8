"""Start policies: the embedded policy as it is, or tuned on imperfect demonstrations until it solves a set share.

A policy's name says what it is: ``tiny`` is the packaged checkpoint; ``tiny@0.1`` was tuned on the family's demonstrations
until about 10 % of its sampled episodes are right (the accuracy of the start is a knob: rare success is where dense
rewards should matter most). Tuned policies are kept
in `runs/learning/policies` and built where they are missing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from benchmarks.learning.growing import accuracy, environment_for
from benchmarks.learning.tasks import FAMILIES, Family
from lapha.engines import TransformersEngine
from lapha.latent import ValueHead
from lapha.tiny import load_tiny

FOLDER = Path("runs/learning/policies")
IGNORED = -100


@dataclass(frozen=True)
class Tuning:
    """How a start policy is made from demonstrations.

    Attributes:
        skill: chance that a demonstrated move lies on a shortest way. A policy that is better than the wanted accuracy to
            begin with learns from `unskilled` ones instead.
        unskilled: the same for making a policy worse.
        batch: demonstrations a step.
        steps: most steps.
        measure_every: steps between two measurements, each on `measured` training questions.
        learning_rate: of AdamW.
        seed: of questions, moves and sampling.
    """

    skill: float = 0.6
    unskilled: float = 0.0
    batch: int = 32
    steps: int = 3000
    measure_every: int = 25
    measured: int = 150
    learning_rate: float = 5e-4
    seed: int = 123


def load_policy(name: str, family: str) -> tuple[Any, Any, ValueHead]:
    """(model, tokenizer, value head) of a start policy.

    Raises:
        ValueError: an unknown policy, or a tuned one that was not built (see `build_policy`).
    """
    if name == "tiny":
        return load_tiny()
    if not name.startswith("tiny@"):
        raise ValueError(f"policy: expected 'tiny' or 'tiny@SHARE', got {name!r}")
    folder = policy_folder(name, family)
    if not (folder / "policy.json").is_file():
        raise ValueError(f"policy: expected one that was built, got {name!r} for {family!r}; see build_policy")
    model, tokenizer, _ = load_tiny()
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    head = ValueHead(model.config.hidden_size)
    head.load_state_dict(torch.load(folder / "head.pt", weights_only=True))
    return model, tokenizer, head


def policy_folder(name: str, family: str) -> Path:
    return FOLDER / f"{family}-{name.replace('@', '-')}"


def build_policy(name: str, family_name: str, tuning: Tuning | None = None) -> dict[str, Any]:
    """Tune the embedded policy on a family's demonstrations until its sampled accuracy reaches the name's share.

    The value head starts from zero weights: a head of another family's would mislead. Returns what `policy.json` says.
    """
    tuning = Tuning() if tuning is None else tuning
    wanted, family = float(name.partition("@")[2]), FAMILIES[family_name]
    folder = policy_folder(name, family_name)
    if (folder / "policy.json").is_file():
        built: dict[str, Any] = json.loads((folder / "policy.json").read_text())
        return built
    torch.manual_seed(tuning.seed)
    model, tokenizer, _ = load_tiny()
    head = ValueHead(model.config.hidden_size)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    environment = environment_for(tokenizer, family)
    questions = family.questions(tuning.measured, seed=tuning.seed + 1, split="train")
    rng = np.random.default_rng(tuning.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=tuning.learning_rate, weight_decay=0.0)

    def measured(seed: int) -> float:
        engine = TransformersEngine(model.eval(), tokenizer, head)
        share = float(np.mean(accuracy(engine, environment, family, questions, seed, greedy=False)))
        engine.close()
        return share

    history = [measured(0)]
    worsen = history[0] > wanted
    step = 0
    while step < tuning.steps and (history[-1] > wanted if worsen else history[-1] < wanted):
        skill = tuning.unskilled if worsen else tuning.skill
        for _ in range(tuning.measure_every):
            asked = family.questions(tuning.batch, seed=tuning.seed + 2 + step, split="train")
            rows = [demonstration_row(environment, family, question, skill, rng) for question in asked]
            imitate(model, optimizer, tokenizer.pad_token_id, rows)
            step += 1
        history.append(measured(step))
        print(f"{name} on {family_name}: step {step}, {history[-1]:.1%} of sampled episodes right", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "model.pt")
    torch.save(head.state_dict(), folder / "head.pt")
    facts = {"policy": name, "family": family_name, "accuracy": history[-1], "history": history, "steps": step}
    (folder / "policy.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def demonstration_row(
    environment: Any, family: Family, question: str, skill: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """(token ids, labels) of one demonstrated episode; prompts and headers are not learned."""
    state, _ = environment.start(question)
    ids = list(state.token_ids)
    labels = [IGNORED] * len(ids)
    tokenizer = environment.tokenizer
    steps = family.demonstration(question, skill, rng)
    for number, step in enumerate(steps, 1):
        own = tokenizer.encode(step, add_special_tokens=False) + [tokenizer.eos_token_id]
        ids += own
        labels += own
        if number < len(steps):
            bridge = tokenizer.encode(f"<|assistant|>STEP-{number + 1}:\n<think>\n", add_special_tokens=False)
            ids += bridge
            labels += [IGNORED] * len(bridge)
    return ids, labels


def imitate(model: Any, optimizer: Any, pad: int, rows: list[tuple[list[int], list[int]]]) -> float:
    """One step of cross-entropy on demonstrations."""
    ids = pad_sequence([torch.tensor(row) for row, _ in rows], batch_first=True, padding_value=pad)
    labels = pad_sequence([torch.tensor(label) for _, label in rows], batch_first=True, padding_value=IGNORED)
    model.train()
    loss = model(input_ids=ids, labels=labels, use_cache=False).loss
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    model.eval()
    value = float(loss.detach())
    assert math.isfinite(value)
    return value
