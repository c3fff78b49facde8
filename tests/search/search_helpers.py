"""What the search tests share: a scripted tree, and what makes two results the same."""

import asyncio
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import torch

from lapha.engines.scripted import ScriptedEngine
from lapha.search import Search, SearchConfig, SearchResult
from lapha.types import Evaluation, Sample, State, Status, Step, Turn

GOLDEN = Path(__file__).parent.parent / "golden"


class ScriptedTree:
    """Policy, evaluator and environment that follow a script (`golden/search_tree.json`).

    A state's last token is the script's name of its node. `delay` makes requests come back after seconds that differ.
    """

    def __init__(self, script: dict, delay: float = 0.0):
        self.script = script
        self.delay = delay
        self.environment = self
        self.asked: list[tuple[str, str]] = []
        self._requests = 0

    def start(self, question):
        return State((len(question), 0)), Turn(context=question)

    async def sample(self, request):
        self._requests += 1
        if self.delay:
            await asyncio.sleep(self.delay * (self._requests * 7919 % 5))
        name = str(request.state.token_ids[-1])
        times = int(request.name.rsplit("expansion ", 1)[1])
        children = self.script["children"][name][times - 1]
        self.asked.append((request.name, name))
        samples = []
        for child in children:
            logprob = math.log(self.script["nodes"][str(child)]["prior"])
            state = State((*request.state.token_ids, child))
            samples.append(Sample([child], [logprob], str(child), "stop", state))
        return samples

    async def evaluate(self, states):
        values = [self._value(state.token_ids[-1]) for state in states]
        return [Evaluation(torch.tensor([float(s.token_ids[-1]), 1.0]), v) for s, v in zip(states, values)]

    def _value(self, name):
        return self.script["root_value"] if name == 0 else self.script["nodes"][str(name)]["value"]

    async def step(self, turn, sample, depth):
        node = self.script["nodes"][sample.text]
        return Step(Status(node["status"]), sample.text, node.get("answer"), True, Turn(context=turn.context))

    def close(self, turn):
        pass


SCRIPT: dict = json.loads((GOLDEN / "search_tree.json").read_text())


def fingerprint(result: SearchResult) -> str:
    """Everything in a result that must not depend on when things happened."""
    document = result.to_dict()
    del document["seconds"], document["index"]
    latents = [result.latents.direction.tolist(), result.latents.radius.tolist()]
    return json.dumps([document, latents], sort_keys=True)


def check_statistics(tree) -> None:
    """N and W are what the values that were backed up add up to, and priors a softmax of the siblings' logprobs."""
    visits, value_sum = np.zeros(len(tree), dtype=int), np.zeros(len(tree))
    backed_up = [n for n in range(len(tree)) if not math.isnan(tree.backed_up[n])] + [leaf for _, leaf in tree.revisits]
    for leaf in backed_up:
        for node in tree.path(leaf):
            visits[node] += 1
            value_sum[node] += tree.backed_up[leaf]
    np.testing.assert_array_equal(tree.visits, visits)
    np.testing.assert_allclose(tree.value_sum, value_sum, atol=1e-9)
    for _, children in tree.siblings():
        weights = np.exp(tree.logprob[children].astype(float) - tree.logprob[children].max())
        np.testing.assert_allclose(tree.prior[children], weights / weights.sum(), rtol=1e-5)


QUESTIONS = [f"question {i}" for i in range(12)]
SMALL = SearchConfig(first_chain=False, simulations=10, breadth=4, prune_every=4, seed=5)


def search_all(questions, engine=None, config=SMALL, **options):
    return list(Search(engine or ScriptedEngine(), config=config).run(questions, **options))


class CountingEnvironment:
    """The scripted environment with turns that must be closed: counts what is open."""

    def __init__(self, inner, step_delay: float = 0.0):
        self.inner, self.step_delay = inner, step_delay
        self.open: set[int] = set()
        self.opened = 0
        self.started: list[str] = []

    def _open(self, turn):
        self.opened += 1
        self.open.add(self.opened)
        return dataclasses.replace(turn, context=self.opened)

    def start(self, question):
        self.started.append(question)
        state, turn = self.inner.start(question)
        return state, self._open(turn)

    async def step(self, turn, sample, depth):
        assert turn.context in self.open, "a step from a turn that was closed"
        if self.step_delay:
            await asyncio.sleep(self.step_delay)
        step = await self.inner.step(turn, sample, depth)
        step.turn = self._open(step.turn)
        return step

    def close(self, turn):
        self.open.remove(turn.context)  # closing twice is an error
