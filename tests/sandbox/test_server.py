from __future__ import annotations

import asyncio
import json
import socket
import time

import httpx
import pytest

from lapha.sandbox import Limits, MontySandbox, RemoteSandbox, SandboxError, create_sandbox
from lapha.sandbox._routes import MAX_BODY
from lapha.sandbox.server import ServerConfig, check_host

from .conftest import LIMITS, serving

pytestmark = pytest.mark.anyio
TOKEN = "a token that nobody guesses"
NAME = "name-of-sixteen-or-more-{}".format


@pytest.fixture(scope="module")
def server():
    config = ServerConfig(token=TOKEN)
    with serving(MontySandbox(LIMITS, concurrency=2), config) as (url, app):
        yield url, app.state.lapha


@pytest.fixture
def web(server):
    with httpx.Client(base_url=server[0], headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
        yield client


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer é"}]
)
@pytest.mark.parametrize("path", ["/health", "/metrics", "/runs", "/nothing"])
def test_nothing_is_said_without_the_token(server, headers, path):
    raw = {name: value.encode() for name, value in headers.items()}
    answer = httpx.request("POST" if path == "/runs" else "GET", server[0] + path, headers=raw, json={})
    assert answer.status_code == 401
    assert answer.json() == {"detail": "a valid bearer token is required"}


def test_health_and_metrics(web):
    web.post("/runs", json={"name": NAME("m"), "of": None, "code": "1 / 0"})
    assert web.get("/health").json()["status"] == "ok"
    lines = dict(line.rsplit(" ", 1) for line in web.get("/metrics").text.splitlines())
    assert float(lines['lapha_sandbox_events_total{event="run_error"}']) >= 1
    assert float(lines["lapha_sandbox_states"]) >= 1
    assert float(lines["lapha_sandbox_runs_waiting"]) == 0


def test_asking_again_gives_the_same_answer_and_runs_nothing_twice(web):
    web.post("/runs", json={"name": NAME("a"), "of": None, "code": "x = 1"})
    request = {"name": NAME("b"), "of": NAME("a"), "code": "x += 1\nx"}
    first, second = web.post("/runs", json=request).json(), web.post("/runs", json=request).json()
    assert first == second
    assert first["value"] == "2"
    assert web.post("/runs", json={"name": NAME("c"), "of": NAME("b"), "code": "x"}).json()["value"] == "2"


def test_a_state_is_gone_when_it_is_closed(web):
    web.post("/runs", json={"name": NAME("d"), "of": None, "code": "x = 1"})
    assert web.delete(f"/states/{NAME('d')}").status_code == 200
    assert web.delete(f"/states/{NAME('d')}").status_code == 200
    answer = web.post("/runs", json={"name": NAME("e"), "of": NAME("d"), "code": "x"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "no such state; it may have expired"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"name": "short"}, 422),
        ({"name": "../../../etc/passwd"}, 422),
        ({"name": NAME("f"), "of": 3}, 422),
        ([1], 422),
        ({"name": NAME("f")}, 422),
        ({"name": NAME("g"), "of": NAME("unknown"), "code": "1"}, 404),
        ({"name": NAME("h"), "of": None, "code": 5}, 422),
        ({"name": NAME("i"), "of": None, "code": "1", "close": 7}, 422),
        ({"name": NAME("i"), "of": None, "code": "1", "more": 7}, 422),
        ({"name": NAME("i") + "\n", "of": None, "code": "1"}, 422),
    ],
)
def test_bad_requests_are_answered(web, body, status):
    answer = web.post("/runs", json=body)
    assert answer.status_code == status
    assert status == 200 or "detail" in answer.json()


def test_what_is_wrong_is_named(web):
    answer = web.post("/runs", json={"name": NAME("j"), "of": None, "code": [1]})
    assert answer.json() == {"detail": "code: Input should be a valid string"}


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b"null", b'{"name": "\\ud800"}'])
def test_bodies_that_are_no_json_object(web, content):
    assert web.post("/runs", content=content, headers=JSON).status_code in (400, 422)


def test_bodies_that_are_too_large(web):
    assert web.post("/runs", content=b" " * (MAX_BODY + 1), headers=JSON).status_code == 413
    assert web.post("/runs", content=iter([b"{}"]), headers=JSON).status_code == 413  # of unknown length


def test_ten_megabytes_of_code_get_a_readable_line(web):
    answer = web.post("/runs", json={"name": NAME("k"), "of": None, "code": "x = 1\n" * 1_700_000}).json()
    assert answer["outcome"] == "refused"
    assert answer["error"] == "code: expected at most 20000 bytes, got 10200000"


def test_there_is_no_documentation_page(web):
    for path in ("/docs", "/redoc"):
        assert web.get(path).status_code == 404


# what a web page, open in a browser on the server's machine, can make that browser send
FROM_PAGES = {
    "a form": {"Content-Type": "text/plain"},
    "a form without a type": {},
    "a script, as text": {"Content-Type": "text/plain", "Origin": "https://evil.example"},
    "a script, as JSON": JSON | {"Origin": "https://evil.example"},
    "a script of a file": JSON | {"Origin": "null"},
    "a script that hides its origin": JSON | {"Sec-Fetch-Site": "cross-site"},
    "a name that now means loopback": JSON | {"Host": "evil.example"},
    "a name that looks like loopback": JSON | {"Host": "127.0.0.1.evil.example"},
    "a name that begins like loopback": JSON | {"Host": "localhost.evil.example:8765"},
    "no name": JSON | {"Host": ""},
}


@pytest.fixture(scope="module")
def tokenless():
    with serving(MontySandbox(LIMITS, concurrency=1), ServerConfig()) as (url, app):
        yield url, app.state.lapha


@pytest.mark.parametrize("page", FROM_PAGES)
@pytest.mark.parametrize(("method", "path"), [("POST", "/runs"), ("GET", "/metrics"), ("GET", "/health")])
def test_no_web_page_is_answered(tokenless, page, method, path):
    headers = FROM_PAGES[page]
    if method == "GET" and not set(headers) & {"Origin", "Host", "Sec-Fetch-Site"}:
        headers = headers | {"Origin": "https://evil.example"}  # the type of a body that is not there says nothing
    url, served = tokenless
    before = len(served.states)
    body = json.dumps({"name": NAME("web"), "of": None, "code": "1"})
    answer = httpx.request(method, url + path, headers=headers, content=body if method == "POST" else None)
    assert answer.status_code in (400, 403, 415)
    assert len(served.states) == before


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8765", "[::1]:8765", "LOCALHOST"])
def test_a_tokenless_server_answers_to_the_names_of_loopback(tokenless, host):
    assert httpx.get(tokenless[0] + "/health", headers={"Host": host}).json()["status"] == "ok"


def test_a_browser_that_asks_first_is_told_no(tokenless):
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(tokenless[0] + "/runs", headers=asked)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


HALVES = {
    "nothing": b"",
    "half a line": b"POST /ru",
    "half a header": b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Le",
    "half a body": b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    "a second half": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
}


@pytest.mark.parametrize("half", HALVES)
def test_half_sent_requests_are_dropped_however_slowly_they_go_on(half):
    with serving(MontySandbox(LIMITS, concurrency=1), ServerConfig(receive_seconds=0.4)) as (url, _):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(HALVES[half])
            connection.settimeout(0.05)
            began, ended = time.monotonic(), None
            while ended is None and time.monotonic() < began + 8:
                try:
                    connection.send(b"x")
                    if connection.recv(4096) == b"":
                        ended = time.monotonic()
                except TimeoutError:
                    continue
                except OSError:
                    ended = time.monotonic()
            assert ended is not None
        assert httpx.get(f"{url}/health").json()["status"] == "ok"


def test_a_request_that_arrives_in_time_may_take_longer():
    limits = Limits(wall_seconds=20, cpu_seconds=20)
    with (
        serving(MontySandbox(limits, concurrency=1), ServerConfig(receive_seconds=0.2)) as (url, _),
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        for number in range(3):
            body = {"name": NAME(f"slow{number}"), "of": None, "code": "for i in range(3 * 10**6): pass\n1"}
            assert client.post("/runs", json=body).json()["value"] == "1"


async def test_a_client_without_the_token_is_told(server):
    async with _client(server[0]) as sandbox:
        with pytest.raises(SandboxError, match=r"answered 401: .*token"):
            await sandbox.open().run("1")


class _client:
    def __init__(self, url, **options):
        self.sandbox = RemoteSandbox(url, **options)

    async def __aenter__(self):
        return self.sandbox

    async def __aexit__(self, *_):
        await self.sandbox.aclose()


async def test_closed_states_are_told_to_the_server(server):
    url, state = server
    async with _client(url, token=TOKEN) as sandbox:
        before = len(state.states)
        session = sandbox.open()
        for i in range(10):
            await session.run(f"x = {i}")
        # each run closes the state before the last, which nobody can reach any more
        assert len(state.states) <= before + 2
        session.close()
    assert len(state.states) == before


async def test_a_state_that_the_server_has_let_go_is_made_again(server):
    url, state = server
    async with _client(url, token=TOKEN) as sandbox:
        session = sandbox.open()
        await session.run("x = 1")
        await session.run("1 / 0")
        assert (await session.run("while True: pass")).breach
        await session.run("x += 1")
        child = session.fork()
        for name in list(state.states):
            state.close(name)
        assert (await child.run("x")).value == "2"
        assert (await session.run("x")).value == "2"


async def test_unused_states_expire():
    config = ServerConfig(expire_seconds=0.4)
    with serving(MontySandbox(LIMITS, concurrency=1), config) as (url, app):
        async with _client(url) as sandbox:
            session = sandbox.open()
            await session.run("x = 1")
            assert len(app.state.lapha.states) == 1
            await asyncio.sleep(1.2)
            assert len(app.state.lapha.states) == 0
            assert app.state.lapha.counters["expired"] == 1
            assert (await session.run("x")).value == "1"


async def test_the_queue_is_bounded_and_clients_come_back():
    limits = Limits(wall_seconds=5, cpu_seconds=5, memory_bytes=64 << 20)
    with serving(MontySandbox(limits, concurrency=1), ServerConfig(queue=2)) as (url, app):
        async with _client(url) as sandbox:
            code = "for i in range(10**6): pass\n1"
            results = await asyncio.gather(*(sandbox.open().run(code) for _ in range(6)))
            assert [result.value for result in results] == ["1"] * 6
            assert app.state.lapha.counters["busy"] > 0
        async with _client(url, busy_seconds=0) as impatient:
            outcomes = await asyncio.gather(*(impatient.open().run(code) for _ in range(6)), return_exceptions=True)
            assert any(isinstance(outcome, SandboxError) and "busy" in str(outcome) for outcome in outcomes)
            assert any(not isinstance(outcome, SandboxError) for outcome in outcomes)


async def test_the_number_of_states_is_bounded():
    with serving(MontySandbox(LIMITS, concurrency=1), ServerConfig(states=2)) as (url, _):
        async with _client(url, busy_seconds=0) as sandbox:
            sessions = [sandbox.open() for _ in range(3)]
            assert (await sessions[0].run("1")).ok
            assert (await sessions[1].run("1")).ok
            with pytest.raises(SandboxError, match="busy"):
                await sessions[2].run("1")


async def test_a_server_that_is_not_there():
    sandbox = RemoteSandbox("http://127.0.0.1:9", busy_seconds=0.1)
    with pytest.raises(
        SandboxError, match=r"at http://127.0.0.1:9/runs could not be used for 0.1 s: ClientConnectorError"
    ):
        await sandbox.open().run("1")
    await sandbox.aclose()


async def test_several_servers_take_turns():
    with (
        serving(MontySandbox(LIMITS, concurrency=1)) as (one, first),
        serving(MontySandbox(LIMITS, concurrency=1)) as (two, second),
    ):
        async with _client([one, two]) as sandbox:
            sessions = [sandbox.open() for _ in range(4)]
            await asyncio.gather(*(session.run("x = 1") for session in sessions))
            assert (await sessions[0].fork().run("x")).value == "1"
            assert len(first.state.lapha.states) + len(second.state.lapha.states) == 5
            assert len(second.state.lapha.states) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_needs_no_token(host):
    check_host(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])
def test_every_other_interface_does(host):
    with pytest.raises(ValueError, match="token: expected one, to serve on"):
        check_host(host, None)
    check_host(host, TOKEN)


@pytest.mark.parametrize("options", [{"token": "short"}, {"queue": 0}, {"states": 0}, {"expire_seconds": 0}])
def test_server_options_are_checked(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected"):
        ServerConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"urls": []},
        {"urls": "ftp://x"},
        {"urls": "http://x", "busy_seconds": -1},
        {"urls": "http://x", "timeout_seconds": 0},
    ],
)
def test_client_options_are_checked(options):
    with pytest.raises(ValueError, match=r"(urls|busy_seconds|timeout_seconds): expected"):
        RemoteSandbox(**options)


async def test_the_factory_reads_the_token_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("LAPHA_SANDBOX_TOKEN", TOKEN)
    assert (await create_sandbox(server[0]).open().run("1")).value == "1"
    with pytest.raises(SandboxError, match="answered 401"):
        await create_sandbox(server[0], token="another token").open().run("1")


def test_the_factory_makes_clients():
    assert create_sandbox("http://127.0.0.1:9", token="x" * 16).urls == ["http://127.0.0.1:9"]
