"""Growing an arm's rollouts with the current policy, and measuring the policy: all through `lapha.search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.learning.arms import Arm, GradedTree
from benchmarks.learning.tasks import Family
from lapha.agent import ChatEnvironment
from lapha.geometry import PolarPoints
from lapha.search import Search, SearchConfig
from lapha.shaping import mark_correct
from lapha.tree import SearchTree
from lapha.types import SamplingParams, Status

STEP_TOKENS = 40
PLAIN = SamplingParams(max_tokens=STEP_TOKENS, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
GREEDY = dataclasses.replace(PLAIN, temperature=0.0)


# groups are independent samples of the policy: no greedy chain first, no twins merged
INDEPENDENT: dict[str, Any] = {"first_chain": False, "merge_twins": False}


def environment_for(tokenizer: Any, family: Family, context_limit: int = 512) -> ChatEnvironment:
    """The family's agent protocol: no tools, as many steps as the family allows. Echoes are not cut: states may recur."""
    return ChatEnvironment(tokenizer, depth_limit=family.depth_limit, context_limit=context_limit, echo_chars=10_000)


def chain_config(family: Family, seed: int, sampling: SamplingParams = PLAIN) -> SearchConfig:
    """One episode: a tree of breadth 1."""
    limit = family.depth_limit
    return SearchConfig(
        simulations=limit, breadth=1, depth_limit=limit, max_expands=1, sampling=sampling, seed=seed, **INDEPENDENT
    )


def grow(
    arm: Arm,
    engine: Any,
    environment: ChatEnvironment,
    family: Family,
    questions: Sequence[str],
    seed: int,
    *,
    chains: int,
    simulations: int,
    breadth: int,
) -> list[GradedTree]:
    """One graded tree a question, in order: `chains` episodes merged at the prompt, or a searched tree.

    Trees are grown without verdicts: no rule stops or guides the search by them. So every arm pays for what it samples.
    """
    if arm.rollouts == "chains":
        asked = [question for question in questions for _ in range(chains)]
        results = _run(engine, environment, chain_config(family, seed), asked)
        results = [merge_chains(results[i : i + chains]) for i in range(0, len(results), chains)]
    else:
        config = SearchConfig(
            simulations=simulations,
            breadth=breadth,
            depth_limit=family.depth_limit,
            max_expands=1,
            **INDEPENDENT,
            value_trust=1.0 if arm.head else 0.0,
            prune_every=8 if arm.prune else 0,
            sampling=PLAIN,
            seed=seed,
        )
        results = _run(engine, environment, config, questions)
    return [graded(tree, latents, family, with_distance=arm.potential == "oracle") for tree, latents in results]


def _run(
    engine: Any, environment: ChatEnvironment, config: SearchConfig, questions: Sequence[str]
) -> list[tuple[SearchTree, PolarPoints]]:
    search = Search(engine, environment=environment, config=config)
    return [(result.tree, result.latents) for result in search.run(list(questions), concurrency=64)]


def merge_chains(chains: Sequence[tuple[SearchTree, PolarPoints]]) -> tuple[SearchTree, PolarPoints]:
    """Episodes of one question as one tree whose prompt branches into them."""
    first, latents = chains[0]
    merged = SearchTree(first.question, first.tokens[0])
    points = [latents[:1]]
    for tree, own in chains:
        place = {0: 0}
        for node in range(1, len(tree)):
            place[node] = merged.add(
                place[int(tree.parent[node])],
                tokens=tree.tokens[node],
                bridge_length=int(tree.bridge_length[node]),
                logprobs=tree.logprobs[node],
                text=tree.text[node],
                answer=tree.answer[node],
                status=Status(int(tree.status[node])),
                well_formed=bool(tree.well_formed[node]),
                value=float(tree.value[node]),
            )
        points.append(own[1:])
    return merged, PolarPoints.cat(points)


def graded(tree: SearchTree, latents: PolarPoints, family: Family, with_distance: bool = False) -> GradedTree:
    """A tree with the family's verdicts, and true distances where the oracle needs them."""
    score = mark_correct(tree, family.verify).score
    remaining = torch.full((len(tree),), torch.inf)
    if with_distance:
        for node in range(len(tree)):
            remaining[node] = family.remaining(tree.question, [tree.text[n] for n in tree.path(node)[1:]])
    return GradedTree(tree, latents, score, remaining)


def accuracy(
    engine: Any, environment: ChatEnvironment, family: Family, questions: Sequence[str], seed: int, *, greedy: bool
) -> list[float]:
    """A verdict a question: one episode each, sampled at temperature 1 or greedy."""
    config = chain_config(family, seed, GREEDY if greedy else PLAIN)
    scores = []
    for tree, _ in _run(engine, environment, config, questions):
        answers = [answer for answer in tree.answer if answer is not None]
        scores.append(family.verify(tree.question, answers[-1]) if answers else 0.0)
    return scores


def radius_report(trees: Sequence[GradedTree]) -> dict[str, float]:
    """Median and 95 % quantile of √c·radius, and how far V sees curvature: reported for every run."""
    radius = np.concatenate([tree.latents.radius[1:].numpy() * tree.latents.curvature**0.5 for tree in trees])
    if not len(radius):
        return {}
    return {"median": round(float(np.median(radius)), 4), "high": round(float(np.quantile(radius, 0.95)), 4)}
