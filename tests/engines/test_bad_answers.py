"""What a server may send instead of an answer: it is that server's failure, and alone it is named in time."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from completion_server import continuation

from lapha.engines import EngineError, RequestRefusedError, RetryPolicy, ScriptedEngine, VLLMServerEngine
from lapha.engines.scripted import render
from lapha.search import Search, SearchConfig
from lapha.types import SampleRequest, SamplingParams, State

POLICY = RetryPolicy(attempts=4, timeout_s=0.3, backoff_s=0.01, longest_backoff_s=0.05, recovery_s=0.02)


class Tokenizer:
    def decode(self, token_ids, **options):
        return " ".join(filter(None, map(render, token_ids)))


def good(asked):
    choices = []
    for index in range(asked["n"]):
        tokens, logprobs = continuation(asked["prompt"], asked["seed"], index)
        choices.append(
            {"index": index, "token_ids": tokens, "logprobs": {"token_logprobs": logprobs}, "finish_reason": "stop"}
        )
    return {"choices": choices}


def spoil(change):
    def answer(asked):
        body = good(asked)
        change(body["choices"])
        return body

    return answer


def put(name, value):
    return spoil(lambda choices: choices[-1].update({name: value}))


def drop(name):
    return spoil(lambda choices: choices[0].pop(name))


def logprob(value):
    return spoil(lambda choices: choices[0]["logprobs"]["token_logprobs"].__setitem__(0, value))


def token(value):
    return spoil(lambda choices: choices[0]["token_ids"].__setitem__(0, value))


BAD = {
    "an error with status 200": lambda asked: {"object": "error", "message": "no"},
    "a list": lambda asked: [1, 2],
    "null": lambda asked: None,
    "a number": lambda asked: 7,
    "no choices": lambda asked: {},
    "choices that are no list": lambda asked: {"choices": {"a": 1}},
    "a choice that is text": lambda asked: {"choices": ["a"] * asked["n"]},
    "too few": spoil(lambda choices: choices.pop()),
    "too many": spoil(lambda choices: choices.append(dict(choices[0]))),
    "all of one index": spoil(lambda choices: [choice.update(index=0) for choice in choices]),
    "no index": drop("index"),
    "an index that is text": put("index", "1"),
    "an index that is true": put("index", True),
    "an index too large": put("index", 9),
    "no finish reason": drop("finish_reason"),
    "an unknown finish reason": put("finish_reason", "error"),
    "no token ids": drop("token_ids"),
    "token ids null": put("token_ids", None),
    "zero tokens": spoil(lambda choices: choices[0].update(token_ids=[], logprobs={"token_logprobs": []})),
    "more tokens than asked": spoil(
        lambda choices: choices[0].update(token_ids=[271] * 1025, logprobs={"token_logprobs": [-1.0] * 1025})
    ),
    "a negative token": token(-1),
    "a token out of range": token(2**40),
    "a token that is text": token("7"),
    "a token that is a fraction": token(7.5),
    "no log-probabilities": drop("logprobs"),
    "log-probabilities of another number": spoil(lambda choices: choices[0]["logprobs"]["token_logprobs"].pop()),
    "a log-probability above 0": logprob(7.0),
    "a log-probability NaN": logprob(float("nan")),
    "a log-probability of minus infinity": logprob(float("-inf")),
    "a log-probability null": logprob(None),
    "a log-probability that is text": logprob("-1"),
    "a hang": "hang",
    "garbage": b"<html>502",
    "a body cut off": b'{"choices": [{"ind',
    "a dropped connection": "drop",
    "status 500": 500,
    "status 400": 400,
}


@pytest.fixture(scope="module")
def servers():
    """(url of a good server, url of a bad one, function that sets what the bad one does)."""
    behaviour = {"bad": "hang"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.say(200, b"{}")

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            how = behaviour["bad"] if self.server is bad else good
            if how == "hang":
                time.sleep(0.6)
            elif how == "drop":
                self.connection.close()
            elif isinstance(how, bytes):
                self.say(200, how)
            elif isinstance(how, int):
                self.say(how, b"no")
            else:
                self.say(200, json.dumps(how(asked)).encode())

        def say(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """Clients that give up are what is tested."""

    fine, bad = Server(("127.0.0.1", 0), Handler), Server(("127.0.0.1", 0), Handler)
    for server in (fine, bad):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield (
        f"http://127.0.0.1:{fine.server_port}",
        f"http://127.0.0.1:{bad.server_port}",
        lambda how: behaviour.update(bad=how),
    )
    for server in (fine, bad):
        server.shutdown()
        server.server_close()


def engine_over(*urls):
    return VLLMServerEngine(list(urls), tokenizer=Tokenizer(), environment=ScriptedEngine().environment, policy=POLICY)


@pytest.mark.parametrize("kind", BAD)
def test_alone_it_is_named_within_attempts_times_timeout(servers, kind):
    _, bad, behave = servers
    behave(BAD[kind])
    requests = [
        SampleRequest(State((5, 6)), (), 2, SamplingParams(), seed, f"tree 1, node {seed}") for seed in range(6)
    ]
    began = time.monotonic()

    async def ask():
        engine = engine_over(bad)
        return await asyncio.gather(*map(engine.sample, requests), return_exceptions=True)

    found = asyncio.run(ask())
    assert time.monotonic() - began < POLICY.attempts * POLICY.timeout_s + 20  # it once took more than a minute
    expected = RequestRefusedError if kind == "status 400" else EngineError
    for request, error in zip(requests, found, strict=True):
        assert isinstance(error, expected)
        assert repr(request.name) in str(error)
        assert bad in str(error)


@pytest.mark.parametrize("kind", BAD)
def test_beside_a_good_server_nothing_is_lost(servers, kind):
    fine, bad, behave = servers
    behave(BAD[kind])
    config = SearchConfig(simulations=3, breadth=3, depth_limit=4, seed=9)
    expected, found = (
        [r.tree.tokens for r in Search(engine_over(*urls), config=config).run([f"q{k}" for k in range(4)])]
        for urls in ([fine], [bad, fine])
    )
    assert found == expected
