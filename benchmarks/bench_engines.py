"""Engines: what values cost beside generation, decoding speed, and many trees at once against one at a time.

Three cases, on the embedded policy or --model:

* values: h(s) and v̂(s) of the states that one round of sampling made, from the running sums that generation left
  ("incremental"), and by a second forward pass over each whole state, the way of the reference implementation. The
  "ceiling" is the generation itself: the ratio against it is the value's share of generation time.
* decoding: B continuations of T tokens by the engine, against transformers' own `generate` with the same batch. The engine
  computes more: log-probabilities, pooled states, and keys and values kept for the tree.
* trees: a search of the same problems with all trees at once ("ceiling"), and one tree at a time. With --urls also over
  vLLM servers, with values by a transformers engine here and, with --pooling-urls, by pooling servers. A pass of its own
  tells how long no request was with the policy, by the search's clock, and, with --engine-pids, how long the generation
  servers' engine processes slept.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import torch

from benchmarks.harness import Case, Contestant, Session
from benchmarks.process_idle import IdleShare
from lapha.engines import TransformersEngine, VLLMServerEngine
from lapha.search import Search, SearchConfig
from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH, problems, tiny_path
from lapha.types import SampleRequest, SamplingParams, State

# (states of the values case, (batch, new tokens) of decoding, problems and simulations of the trees case)
_SIZES = {"smoke": (16, (16, 8), 4, 2), "default": (256, (256, 24), 32, 16)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=None, help="name or path of a model (the embedded policy)")
    parser.add_argument("--urls", nargs="*", default=[], help="vLLM servers for the trees case")
    parser.add_argument("--pooling-urls", nargs="*", default=[], help="vLLM pooling servers for the trees case")
    parser.add_argument(
        "--engine-pids",
        nargs="*",
        type=int,
        default=[],
        help="the generation servers' engine processes, if on this machine",
    )


def run(args: argparse.Namespace, session: Session) -> None:
    states, (batch, new), count, simulations = _SIZES[args.sizes]
    head = tiny_path() if args.model is None else None
    engine = TransformersEngine.from_pretrained(args.model or tiny_path(), value_head=head, device=session.device)
    dtype = str(next(engine.model.parameters()).dtype).removeprefix("torch.")
    questions = [problem.question for problem in problems.generate(max(count, states // BREADTH), 0, "heldout")]
    hidden = {"H": engine.hidden_size}
    session.measure(Case({"states": states, **hidden}, dtype, _values(engine, questions[: states // BREADTH])))
    session.measure(Case({"batch": batch, "tokens": new}, dtype, _decoding(engine, batch, new)))
    config = SearchConfig(simulations=simulations, breadth=BREADTH, depth_limit=DEPTH_LIMIT, sampling=SEARCH)
    for name, policy in _policies(engine, args.urls, args.pooling_urls).items():
        entries = _trees(name, policy, questions[:count], config, args.engine_pids if policy is not engine else [])
        session.measure(Case({"trees": count, "simulations": simulations}, dtype, entries))


def _policies(engine: TransformersEngine, urls: list[str], pooling_urls: list[str]) -> dict[str, Any]:
    policies: dict[str, Any] = {"transformers": engine}
    if urls:
        tokenizer = engine.tokenizer
        policies["vLLM server"] = VLLMServerEngine(urls, tokenizer=tokenizer, evaluator=_another(engine))
    if urls and pooling_urls:
        policies["vLLM servers, pooling too"] = VLLMServerEngine(
            urls, tokenizer=tokenizer, pooling_urls=pooling_urls, value_head=engine.value_head
        )
    return policies


def _another(engine: TransformersEngine) -> TransformersEngine:
    """An engine over the same model, with nothing in its memory."""
    return TransformersEngine(engine.model, engine.tokenizer, engine.value_head, environment=engine.environment)


def _values(engine: TransformersEngine, questions: list[str]) -> list[Contestant]:
    roots = [engine.environment.start(question)[0] for question in questions]

    async def sample_all(sampler: TransformersEngine) -> list[State]:
        requests = [SampleRequest(root, (), BREADTH, SEARCH, seed) for seed, root in enumerate(roots)]
        found = await asyncio.gather(*map(sampler.sample, requests))
        return [sample.state for samples in found for sample in samples]

    generating, evaluating = _another(engine), _another(engine)
    states = asyncio.run(sample_all(engine))

    def generate() -> list[State]:
        generating.invalidate()
        return asyncio.run(sample_all(generating))

    def second_pass() -> Any:
        evaluating.invalidate()
        return asyncio.run(evaluating.evaluate([State(state.token_ids) for state in states]))

    return [
        Contestant("generation", generate, ceiling=True),
        Contestant("values: second forward pass", second_pass),
        Contestant("values: incremental", lambda: asyncio.run(engine.evaluate(states))),
    ]


def _decoding(engine: TransformersEngine, batch: int, new: int) -> list[Contestant]:
    root = engine.environment.start(problems.generate(1, 0, "heldout")[0].question)[0]
    unused = engine.model.config.vocab_size  # no token stops, so that all rows run to the end
    ours = TransformersEngine(engine.model, engine.tokenizer, stop_token_ids=[unused], max_batch=batch)
    params = SamplingParams(max_tokens=new, temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
    request = SampleRequest(root, (), batch, params, 0)
    ids = torch.tensor([root.token_ids] * batch, device=engine.model.device)
    options: dict[str, Any] = dict(
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        attention_mask=torch.ones_like(ids),
    )
    labels = {"sampled_tokens": batch * new}
    return [
        Contestant("engine", lambda: asyncio.run(ours.sample(request)), labels=labels),
        Contestant("generate", lambda: engine.model.generate(ids, **options), ceiling=True, labels=labels),
    ]


def _trees(name: str, policy: Any, questions: list[str], config: SearchConfig, pids: list[int]) -> list[Contestant]:
    def grow(concurrency: int) -> tuple[int, float]:
        for part in (policy, getattr(policy, "evaluator", None)):
            if isinstance(part, TransformersEngine):
                part.invalidate()  # every pass computes its own values
        search = Search(policy, config=config)
        nodes = sum(len(result.tree) for result in search.run(questions, concurrency=concurrency))
        return nodes, search.meter.policy_idle_s / search.meter.seconds

    def watch(concurrency: int) -> dict[str, Any]:
        with IdleShare(pids) as watched:
            nodes, idle = grow(concurrency)
        seen = {} if watched.share is None else {"engine_idle_share": watched.share}
        return {"nodes": nodes, "policy_idle_share": idle, **seen}

    many = len(questions)
    grow(many)  # the labels are of a warm engine
    return [
        Contestant(f"{name}: together", lambda: grow(many), ceiling=True, labels=watch(many)),
        Contestant(f"{name}: one at a time", lambda: grow(1), labels=watch(1)),
    ]
