"""Searches over two completion servers that are killed with SIGKILL while trees grow, and what bad answers are called."""

import asyncio
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lapha.engines import EngineError, RequestRefusedError, RetryPolicy, ScriptedEngine, VLLMServerEngine
from lapha.engines.scripted import render
from lapha.latent import ValueHead
from lapha.search import Search, SearchConfig
from lapha.tiny import load_tiny
from lapha.types import SampleRequest, SamplingParams, State

SCRIPT = Path(__file__).with_name("completion_server.py")
QUESTIONS = [f"question {k}" for k in range(200)]
CONFIG = SearchConfig(simulations=2, breadth=3, depth_limit=4, seed=9)


class Tokenizer:
    """The scripted vocabulary."""

    def decode(self, token_ids, **options):
        return " ".join(filter(None, map(render, token_ids)))


class Process:
    """A completion server on a port that stays the same over its lives."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, "-S", str(SCRIPT), str(self.port), "0.01"])

    def wait(self):
        for _ in range(1000):
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        raise RuntimeError("the completion server did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def processes():
    pair = [Process(), Process()]
    for process in pair:
        process.wait()
    yield pair
    for process in pair:
        process.kill()


def engine_over(urls):
    scripted = ScriptedEngine(depth_limit=4)
    policy = RetryPolicy(attempts=20, timeout_s=10, backoff_s=0.02, longest_backoff_s=0.2, recovery_s=0.1)
    return VLLMServerEngine(
        urls, tokenizer=Tokenizer(), model="m", evaluator=scripted, environment=scripted.environment, policy=policy
    )


def outcome(result):
    return (result.question, result.answer, result.value, result.node, list(map(tuple, result.tree.tokens)))


def test_three_kills_in_200_problems_lose_nothing_and_repeat_nothing(processes):
    undisturbed = engine_over([process.url for process in processes])
    expected = [outcome(result) for result in Search(undisturbed, config=CONFIG).run(QUESTIONS, concurrency=32)]
    assert undisturbed.pool.stats.retries == 0

    engine = engine_over([process.url for process in processes])
    kills = []

    def trouble():
        for victim in (0, 1, 0):
            server = engine.pool.servers[victim]
            mark = server.answered + 10
            while server.answered < mark:
                time.sleep(0.002)
            processes[victim].kill()
            kills.append(victim)
            time.sleep(0.1)
            processes[victim].start()
            processes[victim].wait()

    thread = threading.Thread(target=trouble)
    thread.start()
    results = list(Search(engine, config=CONFIG).run(QUESTIONS, concurrency=32))
    thread.join(timeout=60)
    assert kills == [0, 1, 0]
    assert [result.index for result in results] == list(range(200))
    assert [outcome(result) for result in results] == expected
    assert engine.pool.stats.failovers >= 3
    assert all(server.answered > 0 and server.outstanding == 0 for server in engine.pool.servers)


def ask(engine, params=None, n=2):
    request = SampleRequest(State((1, 2)), (3,), n, params or SamplingParams(), 4, "tree 1, node 2")

    async def scenario():
        try:
            return await engine.sample(request)
        finally:
            await engine.aclose()

    return asyncio.run(scenario())


def test_samples_in_order_with_their_states(processes):
    samples = ask(engine_over([processes[0].url]), n=3)
    assert len({tuple(sample.token_ids) for sample in samples}) == 3
    again = ask(engine_over([processes[1].url]), n=3)
    assert [sample.token_ids for sample in again] == [sample.token_ids for sample in samples]
    for sample in samples:
        assert sample.state.token_ids == (1, 2, 3, *sample.token_ids)
        assert len(sample.logprobs) == len(sample.token_ids)
        assert sample.text == Tokenizer().decode(sample.token_ids[:-1])


def test_greedy_is_asked_once_and_repeated(processes):
    samples = ask(engine_over([processes[0].url]), SamplingParams(temperature=0.0), n=4)
    assert len(samples) == 4
    assert len({tuple(sample.token_ids) for sample in samples}) == 1
    samples[0].token_ids.append(5)
    assert samples[1].token_ids[-1] != 5


@pytest.fixture
def canned():
    """A server that answers everything with `body`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(server.models)

        def do_POST(self):
            server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(server.body)

        def answer(self, body):
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.models, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_servers_that_are_not_vllm_are_found_out(canned):
    canned.body = {"choices": [{"index": k, "text": "hi", "finish_reason": "stop"} for k in range(2)]}
    with pytest.raises(EngineError, match=r"'tree 1, node 2'.*expected token ids and as many log-probabilities"):
        ask(engine_over([canned.url]))
    canned.body = {"choices": []}
    with pytest.raises(EngineError, match="expected 2 continuations, got 0"):
        ask(engine_over([canned.url]))


def test_steps_are_cut_to_the_models_window(canned):
    """vLLM refuses more tokens than its window holds; the engine asks for what fits, and names what does not."""
    choice = {"token_ids": [7], "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "length"}
    canned.body = {"choices": [{"index": k, **choice} for k in range(2)]}
    canned.models = {"data": [{"id": "other", "max_model_len": 5}, {"id": "m", "max_model_len": 20}]}
    engine = engine_over([canned.url])
    assert [sample.finish_reason for sample in ask(engine)] == ["length", "length"]
    assert canned.asked[0]["max_tokens"] == 17
    engine.model = None
    engine.context_limit = 3
    with pytest.raises(RequestRefusedError, match=r"a context of 3 tokens leaves no room .* window of 3"):
        ask(engine)


def test_servers_stop_where_the_chat_template_ends_a_turn(canned):
    choice = {"token_ids": [7], "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "length"}
    canned.body = {"choices": [{"index": k, **choice} for k in range(2)]}
    canned.models = {"data": [{"id": "m", "max_model_len": 20}]}
    _, tokenizer, _ = load_tiny()
    for given, expected in ((None, [tokenizer.convert_tokens_to_ids("<|end|>")]), ([3, 9], [3, 9]), ([], [])):
        engine = VLLMServerEngine([canned.url], tokenizer=tokenizer, model="m", stop_token_ids=given)
        ask(engine)
        assert canned.asked[-1]["stop_token_ids"] == expected


def test_pooled_states_of_another_model_are_found_out(canned):
    import base64

    canned.body = {"data": [{"index": 0, "data": base64.b64encode(bytes(4 * 8)).decode()}]}
    engine = VLLMServerEngine([canned.url], tokenizer=Tokenizer(), pooling_urls=[canned.url], value_head=ValueHead(16))
    with pytest.raises(EngineError, match=r"expected one vector of 16 numbers .*got .*shape \(8,\)"):
        asyncio.run(engine.evaluate([State((1, 2))]))


def test_arguments_that_do_not_fit_together():
    scripted, url = ScriptedEngine(), "http://127.0.0.1:1"
    with pytest.raises(ValueError, match=r"^value_head: expected a ValueHead"):
        VLLMServerEngine([url], tokenizer=Tokenizer(), pooling_urls=[url])
    with pytest.raises(ValueError, match=r"^value_head: expected None"):
        VLLMServerEngine([url], tokenizer=Tokenizer(), value_head=ValueHead(4))
    with pytest.raises(ValueError, match=r"^evaluator: expected None"):
        VLLMServerEngine([url], tokenizer=Tokenizer(), pooling_urls=[url], value_head=ValueHead(4), evaluator=scripted)


def test_a_server_without_a_pooling_server_can_be_searched():
    [evaluation] = asyncio.run(VLLMServerEngine(["http://127.0.0.1:1"], tokenizer=Tokenizer()).evaluate([State((1,))]))
    assert evaluation.pooled is None
    assert math.isnan(evaluation.value)
