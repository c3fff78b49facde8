"""One name for every back end."""

from __future__ import annotations

import os
from typing import Any

from lapha._checks import check
from lapha.sandbox.protocol import Limits, Sandbox

BACKENDS = ("monty", "bubblewrap")

TOKEN_VARIABLE = "LAPHA_SANDBOX_TOKEN"
"""Environment variable with the token of sandbox servers."""


def create_sandbox(backend: str, limits: Limits | None = None, **options: Any) -> Sandbox:
    """Make a sandbox.

    Args:
        backend: ``"monty"``, ``"bubblewrap"``, or the address of a sandbox server (``"http://…"``).
        limits: what a run may use. A server has its own; give none with an address.
        options: further arguments of `MontySandbox`, `BubblewrapSandbox` or `RemoteSandbox`. A server's token is
            read from the environment variable ``LAPHA_SANDBOX_TOKEN`` unless it is given here.

    Raises:
        ValueError: an unknown back end, or a bad option.
        SandboxUnavailable: the back end cannot run here; the message says how to get it. There is no fallback.
    """
    if backend.startswith(("http://", "https://")):
        from lapha.sandbox.client import RemoteSandbox

        check(limits is None, "limits", "none beside a server's address: the server sets them", limits)
        return RemoteSandbox(backend, **({"token": os.environ.get(TOKEN_VARIABLE)} | options))
    expected = f"{', '.join(map(repr, BACKENDS))} or a server's address"
    check(backend in BACKENDS, "backend", expected, repr(backend))
    if backend == "monty":
        from lapha.sandbox.monty import MontySandbox

        return MontySandbox(limits, **options)
    from lapha.sandbox.bubblewrap import BubblewrapSandbox

    return BubblewrapSandbox(limits, **options)
