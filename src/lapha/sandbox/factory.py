"""One name for every back end."""

from __future__ import annotations

from typing import Any

from lapha._checks import check
from lapha.sandbox.protocol import Limits, Sandbox

BACKENDS = ("monty", "bubblewrap")


def create_sandbox(backend: str, limits: Limits | None = None, **options: Any) -> Sandbox:
    """Make a sandbox.

    Args:
        backend: ``"monty"``, ``"bubblewrap"``, or the address of a sandbox server (``"http://…"``).
        limits: what a run may use. A server has its own; give none with an address.
        options: further arguments of `MontySandbox`, `BubblewrapSandbox` or `RemoteSandbox`.

    Raises:
        ValueError: an unknown back end, or a bad option.
        SandboxUnavailable: the back end cannot run here; the message says how to get it. There is no fallback.
    """
    if backend.startswith(("http://", "https://")):
        from lapha.sandbox.client import RemoteSandbox

        check(limits is None, "limits", "none beside a server's address: the server sets them", limits)
        return RemoteSandbox(backend, **options)
    expected = f"{', '.join(map(repr, BACKENDS))} or a server's address"
    check(backend in BACKENDS, "backend", expected, repr(backend))
    if backend == "monty":
        from lapha.sandbox.monty import MontySandbox

        return MontySandbox(limits, **options)
    from lapha.sandbox.bubblewrap import BubblewrapSandbox

    return BubblewrapSandbox(limits, **options)
