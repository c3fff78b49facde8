"""Growing one tree: select, expand, back up, prune, until a budget, the caller or the tree itself says stop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from lapha.pruning import prune_tree
from lapha.search.config import SearchConfig
from lapha.search.expansion import Expansion, evaluate, expand
from lapha.search.frontier import Frontier
from lapha.search.hooks import Services
from lapha.search.latents import TreeLatents
from lapha.search.seams import finite_value
from lapha.search.seeds import derived_seed
from lapha.search.selection import selection_rule
from lapha.search.siblings import Siblings
from lapha.tree import SearchTree
from lapha.types import Evaluation, Sample, SampleRequest, SamplingParams, State, Status, Step, Turn

_OPEN = int(Status.OPEN)


class Planned(NamedTuple):
    """An expansion that has been decided on: the node, how many times it was chosen by then, and the simulation."""

    node: int
    times: int
    simulation: int


class TreeSearch:
    """The search for one question. `run` grows the tree; afterwards `tree`, `latents` and `stop_reason` hold it.

    All choices follow from the settings, the question's key and what the engine returns: expansions that run side by
    side are taken into the tree in the order of their selection, whichever came back first.

    Args:
        question: the question.
        key: names it; all seeds derive from it.
        services: engine, environment, hooks.
        config: settings.
    """

    def __init__(self, question: str, key: str, services: Services, config: SearchConfig) -> None:
        self.question = question
        self.key = key
        self.services = services
        self.config = config
        self.tree = SearchTree(question, ())
        self._family = Siblings(self.tree, config)
        self.latents = TreeLatents()
        self.stop_reason = "error"
        self.counts: Counter[str] = Counter(simulations=0, expansions=0, sampled_tokens=0, pruned=0)
        self._select = selection_rule(config.selection)
        self._turns: dict[int, Turn] = {}  # of nodes that may still grow
        self._states: dict[int, State] = {}
        self._asked_at = 0  # the simulation at which pruning was last considered
        self._frontier: Frontier

    async def run(self) -> None:
        """Grow the tree.

        Raises:
            ValueError: the environment cannot ask the question, or a seam returned what it must not.
        """
        deadline = asyncio.timeout(self._seconds_left())
        try:
            async with deadline:
                await self._start()
                await self._first_chain()
                self.stop_reason = await self._grow()
        except TimeoutError:
            # at the deadline, what has been taken into the tree stays; an engine's own time-out is an error
            if not (deadline.expired() and len(self.latents)):
                raise
            self.stop_reason = self.services.meter.spent() or "deadline"
        finally:
            for turn in self._turns.values():
                self.services.environment.close(turn)
            self._turns.clear()
            self._states.clear()

    def _seconds_left(self) -> float | None:
        limits = [
            self.config.deadline_s,
            self.services.meter.deadline and self.services.meter.deadline - time.monotonic(),
        ]
        return min((limit for limit in limits if limit is not None), default=None)

    async def _start(self) -> None:
        state, turn = self.services.environment.start(self.question)
        self._turns[0], self._states[0] = turn, state
        [evaluation] = await evaluate(self.services, [state], f"question {self.key}, root")
        self.tree = SearchTree(self.question, state.token_ids)
        self._family = Siblings(self.tree, self.config)
        self.tree.value[0] = evaluation.value
        self.latents.append(evaluation.pooled)
        self._frontier = Frontier(self.tree, self.config)

    async def _first_chain(self) -> None:
        """The first simulation: one chain of most likely steps, down to its end. It counts towards no limit of expansions."""
        if self.config.first_chain:
            self.counts["simulations"] = 1
            await self._chain(0, 1)

    async def _chain(self, node: int, simulation: int) -> None:
        """Most likely steps from `node` on, one child each, until one ends."""
        while self.tree.status[node] == Status.OPEN and not self._out_of_tokens():
            turn = self._turns[node]
            params = replace(self._sampling(node, turn), temperature=0.0)
            request = self._request(node, turn, 1, params, "chain")
            expansion = await self._sampled(node, turn, request)
            tokens = [tuple(sample.token_ids) for sample in expansion.samples] + expansion.repeats
            self._take_in(expansion, simulation)
            node = self._family.known(node)[tokens[0]]

    async def _grow(self) -> str:
        while True:
            reason = self._budget_spent()
            if reason:
                return reason
            batch = self._next_batch()
            if not batch:
                if self.counts["simulations"] >= self.config.simulations:
                    continue  # revisits used up the budget
                return "exhausted"
            for planned, expansion in zip(batch, await self._expand_all(batch)):
                self._frontier.finish(planned.node)
                self._take_in(expansion, planned.simulation)
            for planned in batch:  # only now: a node may have been expanded twice at once
                self._release_if_finished(planned.node)
            if self._pruning_is_due():
                self._prune()
            if self.services.stop(self.tree):
                return "stopped"

    def _budget_spent(self) -> str | None:
        config = self.config
        if self.counts["simulations"] >= config.simulations:
            return "simulations"
        return self._out_of_tokens()

    def _out_of_tokens(self) -> str | None:
        limit = self.config.max_tokens
        if limit is not None and self.counts["sampled_tokens"] >= limit:
            return "max_tokens"
        return self.services.meter.spent()

    def _next_batch(self) -> list[Planned]:
        """The next expansions; revisits of leaves are dealt with on the way."""
        batch: list[Planned] = []
        while len(batch) < self.config.parallel_expansions and self.counts["simulations"] < self.config.simulations:
            node = self._select(self._frontier)
            if node is None:
                break
            self.counts["simulations"] += 1
            simulation = self.counts["simulations"]
            if self.tree.status[node] == Status.OPEN:
                self._frontier.start(node)
                batch.append(Planned(node, self._frontier.started[node], simulation))
            else:
                self.tree.revisits.append((simulation, node))
                self._frontier.visit(node, float(self.tree.backed_up[node]))
        return batch

    async def _expand_all(self, batch: list[Planned]) -> list[Expansion]:
        if len(batch) == 1:
            return [await self._expand(batch[0])]
        tasks = [asyncio.ensure_future(self._expand(planned)) for planned in batch]
        try:
            return [await task for task in tasks]
        finally:
            await self._settle(tasks)

    async def _settle(self, tasks: Sequence[asyncio.Future[Expansion]]) -> None:
        """After a failure: no task outlives its tree, and no turn stays open."""
        if all(task.done() and not task.cancelled() and task.exception() is None for task in tasks):
            return
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Expansion):
                for step in outcome.steps:
                    self.services.environment.close(step.turn)

    async def _expand(self, planned: Planned) -> Expansion:
        node, times, _ = planned
        turn = self._turns[node]
        request = self._request(node, turn, self.config.breadth, self._sampling(node, turn), times)
        return await self._sampled(node, turn, request)

    def _request(self, node: int, turn: Turn, n: int, params: SamplingParams, times: int | str) -> SampleRequest:
        return SampleRequest(
            state=self._states[node],
            bridge_ids=turn.bridge_ids,
            n=n,
            params=params,
            seed=derived_seed(self.config.seed, self.key, node, times),
            name=f"question {self.key}, node {node}, expansion {times}",
            stop_token_ids=turn.stop_token_ids,
        )

    async def _sampled(self, node: int, turn: Turn, request: SampleRequest) -> Expansion:
        known = self._family.known(node) if self.config.merge_twins else None
        return await expand(self.services, node, turn, int(self.tree.depth[node]) + 1, request, known)

    def _sampling(self, node: int, turn: Turn) -> SamplingParams:
        """Sampling parameters, with no more tokens than the context has room for."""
        params = self.config.sampling
        room = self._room(self._states[node], turn)
        return params if room is None or room >= params.max_tokens else replace(params, max_tokens=max(room, 1))

    def _room(self, state: State, turn: Turn) -> int | None:
        """How many tokens may follow the state and its bridge; None where neither environment nor engine has a limit."""
        parts = (self.services.environment, self.services.policy)
        limits = [limit for part in parts if (limit := getattr(part, "context_limit", None)) is not None]
        return min(limits) - len(state.token_ids) - len(turn.bridge_ids) if limits else None

    def _is_full(self, state: State, turn: Turn) -> bool:
        room = self._room(state, turn)
        return room is not None and room < 1

    # --- taking an expansion into the tree -----------------------------------------------------------------

    def _take_in(self, expansion: Expansion, simulation: int) -> list[int]:
        """Make an expansion part of the tree; returns the nodes that it made."""
        tree, parent = self.tree, expansion.node
        nodes, taken = [], []
        for row, (sample, step) in enumerate(zip(expansion.samples, expansion.steps)):
            tokens = tuple(sample.token_ids)
            self._count(step)
            if self.config.merge_twins and tokens in self._family.known(
                parent
            ):  # by an expansion that ran beside this one
                self.services.environment.close(step.turn)
                expansion.repeats.append(tokens)
            else:
                self.counts["sampled_tokens"] += len(tokens)
                nodes.append(self._add(parent, sample, step, expansion.evaluations[row]))
                taken.append(row)
        tree.simulation[nodes] = simulation
        for tokens in expansion.repeats:
            self.counts["sampled_tokens"] += len(tokens)
            self.counts["repeats"] += 1
            tree.repeats.append((simulation, self._family.repeat(parent, tokens)))
        self.counts["expansions"] += 1
        tree.expansions[parent] += 1
        self._frontier.add(parent, nodes)
        self._frontier.set_priors(*self._family.priors(parent))
        self._back_up(nodes, [expansion.evaluations[row] for row in taken], [expansion.steps[row] for row in taken])
        return nodes

    def _count(self, step: Step) -> None:
        for name, count in step.details.items():
            self.counts[name] += count

    def _add(self, parent: int, sample: Sample, step: Step, evaluation: Evaluation) -> int:
        """One new child of `parent`."""
        bridge, depth = self._turns[parent].bridge_ids, int(self.tree.depth[parent]) + 1
        status = step.status
        if status is Status.OPEN and depth >= self.config.max_depth:
            status = Status.DEPTH_LIMIT
        elif status is Status.OPEN and self._is_full(sample.state, step.turn):
            status = Status.CONTEXT_LIMIT
        node = self.tree.add(
            parent,
            tokens=(*bridge, *sample.token_ids),
            bridge_length=len(bridge),
            logprobs=sample.logprobs,
            text=step.text,
            answer=step.answer,
            status=status,
            well_formed=step.well_formed,
            value=evaluation.value,
        )
        if step.reward is not None:
            self.tree.reward[node] = finite_value(step.reward, "environment: Step.reward", f"node {node}")
        self.latents.append(evaluation.pooled)
        self._family.add(parent, node, tuple(sample.token_ids))
        if status is Status.OPEN:
            self._turns[node], self._states[node] = step.turn, sample.state
        else:
            self.services.environment.close(step.turn)
        return node

    def _back_up(self, nodes: list[int], evaluations: list[Evaluation], steps: list[Step]) -> None:
        tree = self.tree
        for node, status, evaluation, step in zip(nodes, tree.status[nodes].tolist(), evaluations, steps):
            if status != _OPEN:
                value = finite_value(
                    self.services.terminal_value(tree, node, evaluation, step), "terminal_value", f"node {node}"
                )
            elif self.config.backs_up_values:
                value = self._frontier.node_value(node)
            else:
                continue
            tree.backed_up[node] = value
            self._frontier.visit(node, value)

    def _release_if_finished(self, node: int) -> None:
        """Let go of what the engine and the environment hold for a node that can grow no more."""
        if self._frontier.finished(node) and node in self._turns:
            self.services.environment.close(self._turns.pop(node))
            self._states.pop(node, None)

    # --- pruning ---------------------------------------------------------------------------------------------

    def _pruning_is_due(self) -> bool:
        every, before = self.config.prune_every, self._asked_at
        self._asked_at = self.counts["simulations"]
        return every > 0 and self._asked_at // every > before // every

    def _prune(self) -> None:
        tree, config, now = self.tree, self.config, self.counts["simulations"]
        seed = derived_seed(config.seed, config.prune.seed, self.key, "prune", now)
        settings = replace(config.prune, seed=seed)
        result = prune_tree(tree, self.latents.points(), settings, protected=torch.from_numpy(self._best_leaves()))
        nodes = np.flatnonzero(result.disabled.numpy() & ~tree.pruned)
        tree.pruned[nodes] = True
        tree.pruned_at[nodes] = now
        self.counts["pruned"] += len(nodes)
        for node in self._frontier.cut(nodes.tolist()):
            self._release_if_finished(node)

    def _best_leaves(self) -> np.ndarray:
        """(N,) bool: the terminal leaves with the highest value, if it is above 0: pruning keeps the way to them.

        Where terminal values are rewards, these are the correct leaves.
        """
        values = np.where(self.tree.status != Status.OPEN, self.tree.backed_up, -np.inf)
        return (values == values.max()) & (values > 0)
