from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from lapha.sandbox import BubblewrapSandbox, Limits, MontySandbox, RemoteSandbox, create_app
from lapha.sandbox.server import ServerConfig, server_of

from .availability import need_bubblewrap

LIMITS = Limits(
    wall_seconds=2.0,
    cpu_seconds=1.0,
    memory_bytes=128 << 20,
    output_bytes=10_000,
    code_bytes=20_000,
    file_bytes=1 << 20,
)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@contextmanager
def serving(sandbox, config=None):
    """A real server on a free port of loopback; its address and its application."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(sandbox, config or ServerConfig())
    server = server_of(app, port=port, log_level="warning")
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}", app
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="session")
def monty():
    with MontySandbox(LIMITS, concurrency=2) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def bubblewrap():
    need_bubblewrap()
    with BubblewrapSandbox(LIMITS, concurrency=4) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def remote():
    with serving(MontySandbox(LIMITS, concurrency=2)) as (url, _), RemoteSandbox(url) as sandbox:
        yield sandbox


@pytest.fixture(params=["monty", "bubblewrap", "remote"])
def sandbox(request):
    return request.getfixturevalue(request.param)
