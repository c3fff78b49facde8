"""One expansion: sample children of a node, step the environment and evaluate them, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from dataclasses import dataclass

from lapha.search.hooks import Services
from lapha.search.seams import checked_evaluations
from lapha.types import Evaluation, Sample, SampleRequest, State, Step, Turn


@dataclass(slots=True)
class Expansion:
    """What an expansion brought, before it becomes part of the tree; lists in the order of the samples.

    Attributes:
        node: the expanded node.
        samples, steps, evaluations: of the children to be made.
        repeats: token ids of samples that repeat one of them, or a child that was there before.
    """

    node: int
    samples: list[Sample]
    steps: list[Step]
    evaluations: list[Evaluation]
    repeats: list[tuple[int, ...]]


async def expand(
    services: Services,
    node: int,
    turn: Turn,
    depth: int,
    request: SampleRequest,
    known: Container[tuple[int, ...]] | None,
) -> Expansion:
    """Sample `request.n` children of `node`, whose turn is `turn`; children get `depth`.

    Samples of the same token ids become one child; those in `known` (children that are there) become none. None keeps all.

    Children are stepped concurrently with one another and with their evaluation. If anything fails, or the tree is
    cancelled, the turns that the environment has already opened are closed.
    """
    samples, repeats = _distinct(await services.sample(request), known)
    steps = [asyncio.ensure_future(services.environment.step(turn, sample, depth)) for sample in samples]
    complete = False
    try:
        evaluations = await evaluate(services, [sample.state for sample in samples], request.name)
        expansion = Expansion(node, samples, [await step for step in steps], evaluations, repeats)
        complete = True
        return expansion
    finally:
        if not complete:
            await _abandon(services, steps)


def _distinct(
    samples: list[Sample], known: Container[tuple[int, ...]] | None
) -> tuple[list[Sample], list[tuple[int, ...]]]:
    """The samples that bring something new, and the token ids of the others."""
    if known is None:
        return samples, []
    kept: dict[tuple[int, ...], Sample] = {}
    repeats = []
    for sample in samples:
        tokens = tuple(sample.token_ids)
        if tokens in kept or tokens in known:
            repeats.append(tokens)
        else:
            kept[tokens] = sample
    return list(kept.values()), repeats


async def evaluate(services: Services, states: Sequence[State], name: str) -> list[Evaluation]:
    """h(s) and v̂(s) of `states`.

    Raises:
        ValueError: the evaluator returned another number of evaluations, or a value outside [0, 1].
    """
    if not states:
        return []
    return checked_evaluations(await services.evaluator.evaluate(states), len(states), name)


async def _abandon(services: Services, steps: Sequence[asyncio.Future[Step]]) -> None:
    for step in steps:
        step.cancel()
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, Step):
            services.environment.close(outcome.turn)
