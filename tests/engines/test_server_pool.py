"""Balancing, retries and failover, against real HTTP servers in this process that fail on command."""

import asyncio
import json
import pickle
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lapha.engines import EngineError, RequestRefusedError, RetryPolicy
from lapha.engines.server_pool import ServerPool

FAST = RetryPolicy(
    attempts=4, timeout_s=5.0, backoff_s=0.01, longest_backoff_s=0.05, failure_threshold=2, recovery_s=0.05
)


class FaultyServer:
    """Answers with its name, unless `script` says otherwise: a status, "hang", "cut" or "garbage" for each request."""

    def __init__(self, name, script=(), delay=0.0, port=0):
        self.name, self.script, self.delay = name, list(script), delay
        self.seen, self.lock, self.busy, self.most_busy = 0, threading.Lock(), 0, 0
        self.connections = self.open_connections = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with outer.lock:
                    outer.connections += 1
                    outer.open_connections += 1

            def finish(self):
                super().finish()
                with outer.lock:
                    outer.open_connections -= 1

            def do_POST(self):
                outer.handle(self)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.seen += 1
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            action = self.script.pop(0) if self.script else 200
        time.sleep(self.delay)
        with self.lock:
            self.busy -= 1
        if action == "cut":
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        if action == "hang":
            time.sleep(1.0)
            action = 200
        text = "<html>oops" if action == "garbage" else json.dumps({"from": self.name, "got": body})
        handler.send_response(200 if action == "garbage" else action)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text.encode())

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def serve():
    servers = []

    def start(*arguments, **options):
        servers.append(FaultyServer(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def dead_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def ask(pool, count=1, name="tree 3, node 7"):
    async def scenario():
        answers = await asyncio.gather(
            *(pool.ask("/x", {"k": k}, name=name) for k in range(count)), return_exceptions=True
        )
        await pool.aclose()
        return answers

    return asyncio.run(scenario())


def raised(pool, kind):
    (error,) = ask(pool)
    assert isinstance(error, kind)
    return error


def test_an_answer(serve):
    server = serve("a")
    assert ask(ServerPool([server.url + "/v1/"], FAST)) == [{"from": "a", "got": {"k": 0}}]


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "garbage"])
def test_faults_are_tried_again(serve, fault):
    server = serve("a", [fault, fault])
    pool = ServerPool([server.url], FAST)
    assert ask(pool)[0]["from"] == "a"
    assert server.seen == 3
    assert pool.stats.retries == 2


def test_a_timeout_goes_to_the_other_server(serve):
    slow, good = serve("slow", ["hang"]), serve("good")
    pool = ServerPool([slow.url, good.url], RetryPolicy(timeout_s=0.3, backoff_s=0.01))
    assert ask(pool)[0]["from"] == "good"
    assert pool.stats.failovers == 1
    assert "Timeout" in pool.stats.last_errors[slow.url]


def test_refusals_are_not_tried_again(serve):
    server = serve("a", [400])
    error = raised(ServerPool([server.url], FAST), RequestRefusedError)
    assert server.seen == 1
    for part in ("tree 3, node 7", server.url, "HTTP 400", '"from": "a"'):
        assert part in str(error)


def test_giving_up_names_request_and_servers(serve):
    server, dead = serve("a", [500] * 10), dead_url()
    pool = ServerPool([server.url, dead], FAST)
    error = raised(pool, EngineError)
    for part in ("tree 3, node 7", "gave up after 4 attempts", server.url, "HTTP 500", dead, "ClientConnectorError"):
        assert part in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_work_is_balanced_by_outstanding_requests(serve):
    slow, fast = serve("slow", delay=0.3), serve("fast", delay=0.02)

    async def stream(pool):
        async def client(k):
            for _ in range(10):
                await pool.ask("/x", {"k": k}, name="r")

        await asyncio.gather(*(client(k) for k in range(4)))

    pool = ServerPool([slow.url, fast.url], FAST)
    asyncio.run(stream(pool))
    assert slow.seen + fast.seen == 40
    assert fast.seen > 1.5 * slow.seen
    assert all(server.outstanding == 0 for server in pool.servers)


def test_a_dead_server_is_left_out(serve):
    good, dead = serve("good"), dead_url()
    policy = RetryPolicy(attempts=3, backoff_s=0.01, failure_threshold=2, recovery_s=60)
    pool = ServerPool([dead, good.url], policy)
    for _ in range(10):
        assert ask(pool)[0]["from"] == "good"
    assert pool.servers[0].failed == 2
    assert pool.servers[0].breaker.state == "open"


def test_a_server_that_comes_back_is_used_again(serve):
    first = serve("first")
    port = first.http.server_port
    pool = ServerPool([first.url], RetryPolicy(attempts=100, backoff_s=0.02, longest_backoff_s=0.05, recovery_s=0.05))
    assert ask(pool)[0]["from"] == "first"
    first.close()

    def come_back():
        while not pool.servers[0].breaker.opened:
            time.sleep(0.005)
        serve("second", port=port)

    thread = threading.Thread(target=come_back)
    thread.start()
    answers = ask(pool, 5)
    thread.join()
    assert [answer["from"] for answer in answers] == ["second"] * 5
    first.close = lambda: None  # it is closed already


def test_a_cancelled_request_is_not_the_servers_fault(serve):
    server = serve("a", delay=0.3)
    pool = ServerPool([server.url], RetryPolicy(failure_threshold=1))

    async def scenario():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.ask("/x", {}, name="r"), 0.05)
        await pool.aclose()

    asyncio.run(scenario())
    assert pool.servers[0].breaker.state == "closed"
    assert pool.servers[0].outstanding == 0


def test_connections_are_kept_within_a_loop_and_close_with_it(serve):
    server = serve("a")
    pool = ServerPool([server.url], FAST)

    async def ask_in_turn():
        return [await pool.ask("/x", {"k": k}, name="r") for k in range(5)]

    for runs in (1, 2):
        assert len(asyncio.run(ask_in_turn())) == 5  # nobody closes the pool
        assert server.connections == runs
        until(lambda: server.open_connections == 0)
    assert len(pool._sessions) == 1  # loops that have ended are forgotten


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("urls", [[], "http://a", ["ftp://a"]])
def test_bad_urls(urls):
    with pytest.raises(ValueError, match=r"^urls: expected"):
        ServerPool(urls)


@pytest.mark.parametrize("name", ["attempts", "timeout_s", "connect_timeout_s", "recovery_s", "failure_threshold"])
def test_bad_policies(name):
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        RetryPolicy(**{name: 0})
