"""The server engine against real vLLM servers: parity with transformers, search, and failover."""

import asyncio
import importlib.util
import json
import threading
import time
from pathlib import Path

import pytest
import torch
from vllm_process import run_script

from lapha.engines import EngineError, RequestRefusedError, RetryPolicy, TransformersEngine, VLLMServerEngine
from lapha.search import Search, SearchConfig
from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH, problems, tiny_path
from lapha.types import SampleRequest, SamplingParams, State

QUESTIONS = [problem.question for problem in problems.generate(12, seed=3, split="heldout")]
CONFIG = SearchConfig(simulations=6, breadth=BREADTH, depth_limit=DEPTH_LIMIT, sampling=SEARCH, seed=1)


@pytest.fixture
def engine(servers, tiny):
    _, tokenizer, head = tiny
    urls = [servers["first"].url, servers["second"].url]
    return VLLMServerEngine(
        urls, tokenizer=tokenizer, model="tiny", pooling_urls=[servers["pooling"].url], value_head=head
    )


@pytest.fixture(scope="module")
def local(tiny):
    return TransformersEngine(*tiny)


async def closing(engine, awaitable):
    try:
        return await awaitable
    finally:
        await engine.aclose()


def root_request(engine, n=4, params=SEARCH, seed=5, question=QUESTIONS[0]):
    state, turn = engine.environment.start(question)
    return SampleRequest(state, turn.bridge_ids, n, params, seed, "root")


@torch.no_grad()
def whole_pass(model, token_ids):
    output = model(input_ids=torch.tensor([token_ids]), output_hidden_states=True, use_cache=False)
    return output.hidden_states[-1][0], torch.log_softmax(output.logits[0], dim=-1)


def test_samples_carry_token_ids_and_temperature_one_logprobs(engine, tiny):
    model = tiny[0]
    sharp = SamplingParams(max_tokens=24, temperature=0.5, top_p=0.9, top_k=20, repetition_penalty=1.05)
    samples = asyncio.run(closing(engine, engine.sample(root_request(engine, params=sharp))))
    prompt = root_request(engine).state.token_ids
    assert len(samples) == 4
    for sample in samples:
        assert sample.state.token_ids == prompt + tuple(sample.token_ids)
        assert (sample.token_ids[-1] in TransformersEngine(*tiny).stop_token_ids) == (sample.finish_reason == "stop")
        _, logprobs = whole_pass(model, sample.state.token_ids)
        expected = logprobs[len(prompt) - 1 : -1].gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=2e-4, rtol=2e-4)


def test_greedy_is_the_transformers_engines(engine, local):
    greedy = SamplingParams(max_tokens=24, temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0)
    mine = asyncio.run(closing(engine, engine.sample(root_request(engine, n=2, params=greedy))))
    theirs = asyncio.run(local.sample(root_request(local, n=2, params=greedy)))
    assert [(s.token_ids, s.text, s.finish_reason) for s in mine] == [
        (s.token_ids, s.text, s.finish_reason) for s in theirs
    ]


def test_seeds(engine):
    async def scenario():
        return await asyncio.gather(*(engine.sample(root_request(engine, seed=seed, n=6)) for seed in (7, 7, 8)))

    first, again, other = asyncio.run(closing(engine, scenario()))
    assert [s.token_ids for s in first] == [s.token_ids for s in again] != [s.token_ids for s in other]
    assert len({tuple(s.token_ids) for s in first}) > 1


def test_values_are_the_transformers_engines(engine, local):
    """h(s) from the pooling server, v̂(s) from the head: the same numbers as in this process."""

    async def states():
        samples = await engine.sample(root_request(engine, n=8))
        chosen = [State(sample.state.token_ids) for sample in samples] + [root_request(engine).state]
        return chosen, await engine.evaluate(chosen)

    chosen, mine = asyncio.run(closing(engine, states()))
    theirs = asyncio.run(local.evaluate(chosen))
    for here, there in zip(mine, theirs):
        torch.testing.assert_close(here.pooled, there.pooled, atol=1e-5, rtol=1e-5)
        assert here.value == pytest.approx(there.value, abs=1e-5)


def test_more_states_than_one_request_takes(engine):
    root = root_request(engine).state
    states = [State(root.token_ids[: 5 + k % 20]) for k in range(150)]
    evaluations = asyncio.run(closing(engine, engine.evaluate(states)))
    assert len(evaluations) == 150
    for k in range(20, 150):
        torch.testing.assert_close(evaluations[k].pooled, evaluations[k % 20].pooled, atol=1e-5, rtol=1e-5)


def test_a_refused_request_names_itself(engine):
    request = SampleRequest(State((5,) * 600), (), 1, SEARCH, 0, "tree 4, node 2")
    with pytest.raises(RequestRefusedError, match=r"'tree 4, node 2': a context of 600 tokens .* window of 512"):
        asyncio.run(closing(engine, engine.sample(request)))
    engine.context_limit = 10**6  # as if the servers had not told: now they refuse
    with pytest.raises(RequestRefusedError, match=r"'tree 4, node 2' from http://.*HTTP 400"):
        asyncio.run(closing(engine, engine.sample(request)))


def test_search(engine, servers):
    """Whole searches, many trees at once, over both servers."""
    results = list(Search(engine, config=CONFIG).run(QUESTIONS, concurrency=12))
    assert [result.question for result in results] == QUESTIONS
    for result in results:
        assert result.error is None
        assert len(result.tree) > BREADTH
        assert len(result.latents) == len(result.tree)
        assert all(0 <= value <= 1 for value in result.tree.value)
    assert all(server.answered > 0 for server in engine.pool.servers)


def test_the_example_script(servers, model_folder, tmp_path):
    """examples/vllm_search.py: a JSONL of questions in, a JSONL of answers out; a second run repeats no tree."""
    path = Path(__file__).parents[3] / "examples" / "vllm_search.py"
    spec = importlib.util.spec_from_file_location("vllm_search", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    source, target = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps({"question": question}) + "\n" for question in QUESTIONS[:4]))
    urls, pooling = [servers["first"].url], [servers["pooling"].url]

    def answers():
        arguments = (str(model_folder), str(tiny_path()), str(source), str(target))
        asyncio.run(example.main(*arguments, urls, pooling))
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        return sorted(rows, key=lambda row: row["index"])

    first = answers()
    assert [row["question"] for row in first] == QUESTIONS[:4]
    assert any(row["answer"] for row in first)
    started = time.monotonic()
    assert answers() == first
    assert time.monotonic() - started < 30


def test_a_killed_server_loses_nothing(servers, tiny):
    """One of two generation servers is killed while trees are growing: every tree is finished, none twice."""
    _, tokenizer, head = tiny
    engine = VLLMServerEngine(
        [servers["first"].url, servers["second"].url], tokenizer=tokenizer, model="tiny",
        pooling_urls=[servers["pooling"].url], value_head=head, policy=RetryPolicy(timeout_s=30, recovery_s=1.0),
    )  # fmt: skip
    victim = servers["second"]
    answered_by_victim = engine.pool.servers[1]

    def kill_when_busy():
        while answered_by_victim.answered < 5:
            time.sleep(0.01)
        victim.kill()

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    questions = QUESTIONS * 4
    try:
        results = list(Search(engine, config=CONFIG).run(questions, concurrency=16))
        killer.join()
        assert [result.question for result in results] == questions
        assert len({result.index for result in results}) == len(questions)
        assert all(result.error is None for result in results)
        assert engine.pool.stats.failovers > 0
        assert answered_by_victim.breaker.opened >= 1
        only_the_dead = VLLMServerEngine(
            [victim.url], tokenizer=tokenizer, model="tiny", policy=RetryPolicy(attempts=2)
        )
        with pytest.raises(EngineError, match=r"'root' from http://127.0.0.1:\d+: gave up after 2 attempts"):
            asyncio.run(only_the_dead.sample(root_request(only_the_dead)))
    finally:
        victim.start()
        victim.wait()


def test_vllm_in_process(vllm_python, model_folder):
    """The in-process engine, in vLLM's own environment."""
    source = Path(__file__).parents[3] / "src"
    script = Path(__file__).with_name("local_engine_script.py")
    extra = {"PYTHONPATH": str(source), "VLLM_CPU_KVCACHE_SPACE": "1"}
    status, output = run_script(vllm_python, script, model_folder, extra=extra)
    assert status == 0, output[-5000:]
    assert "local engine: ok" in output
