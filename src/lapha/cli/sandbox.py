"""`lapha sandbox`: serve sandbox sessions to other machines, and say what this machine can do."""

from __future__ import annotations

import os
from typing import Annotated

import typer

app = typer.Typer(help="Sandboxes for model-written code.", no_args_is_help=True)


@app.command()
def serve(
    backend: Annotated[str, typer.Option(help="monty or bubblewrap")] = "bubblewrap",
    host: Annotated[str, typer.Option(help="interface; any but loopback needs a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port")] = 8765,
    wall_seconds: Annotated[float, typer.Option(help="longest run")] = 10.0,
    cpu_seconds: Annotated[float, typer.Option(help="most processor time of a run")] = 10.0,
    memory_mib: Annotated[int, typer.Option(help="most memory of a run, MiB")] = 512,
    concurrency: Annotated[int, typer.Option(help="most runs at the same time")] = 16,
    queue: Annotated[int, typer.Option(help="most runs that wait or run; more are told to come back")] = 256,
    states: Annotated[int, typer.Option(help="most states kept")] = 10_000,
    expire_seconds: Annotated[float, typer.Option(help="unused states are closed after this time")] = 900.0,
    receive_seconds: Annotated[float, typer.Option(help="requests that take longer to arrive are dropped")] = 10.0,
) -> None:
    """Serve sandbox sessions over HTTP. The token is read from the environment: LAPHA_SANDBOX_TOKEN."""
    from lapha.sandbox.factory import BACKENDS, TOKEN_VARIABLE, create_sandbox
    from lapha.sandbox.protocol import Limits
    from lapha.sandbox.server import ServerConfig, check_host
    from lapha.sandbox.server import serve as run_server

    if backend not in BACKENDS:
        raise ValueError(f"--backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    token = os.environ.get(TOKEN_VARIABLE) or None
    times = {"expire_seconds": expire_seconds, "receive_seconds": receive_seconds}
    config = ServerConfig(token=token, queue=queue, states=states, **times)
    check_host(host, token)  # before anything is started
    limits = Limits(wall_seconds=wall_seconds, cpu_seconds=cpu_seconds, memory_bytes=memory_mib << 20)
    sandbox = create_sandbox(backend, limits, concurrency=concurrency)
    try:
        run_server(sandbox, host, port, config)
    finally:
        sandbox.close()


@app.command()
def check() -> None:
    """Say which back ends run on this machine, and what the others lack."""
    from lapha.sandbox.factory import BACKENDS, create_sandbox
    from lapha.sandbox.protocol import SandboxUnavailable

    working = 0
    for backend in BACKENDS:
        try:
            create_sandbox(backend).close()
        except SandboxUnavailable as error:
            typer.echo(f"{backend}: no. {error}")
        else:
            working += 1
            typer.echo(f"{backend}: yes")
    if not working:
        raise typer.Exit(1)
