"""Sandboxes for model-written code: sessions that branch with the tree.

`create_sandbox("monty")` needs no privileges; `create_sandbox("bubblewrap")` runs full CPython with numpy and sympy;
`create_sandbox("http://…")` uses a server (`lapha sandbox serve`). What cannot run says why: nothing here ever falls
back to running code unconfined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapha._imports import lazy_exports

# name -> module that defines it; the supervisor's process imports this package and needs none of them
_EXPORTS = {
    "BREACHES": "protocol",
    "OUTCOMES": "protocol",
    "Limits": "protocol",
    "RunResult": "protocol",
    "Sandbox": "protocol",
    "SandboxError": "protocol",
    "SandboxSession": "protocol",
    "SandboxUnavailable": "protocol",
    "BubblewrapSandbox": "bubblewrap",
    "MontySandbox": "monty",
    "RemoteSandbox": "client",
    "create_sandbox": "factory",
    "create_app": "server",
}

__all__ = sorted(_EXPORTS)

if TYPE_CHECKING:
    from lapha.sandbox.bubblewrap import BubblewrapSandbox as BubblewrapSandbox
    from lapha.sandbox.client import RemoteSandbox as RemoteSandbox
    from lapha.sandbox.factory import create_sandbox as create_sandbox
    from lapha.sandbox.monty import MontySandbox as MontySandbox
    from lapha.sandbox.protocol import BREACHES as BREACHES
    from lapha.sandbox.protocol import OUTCOMES as OUTCOMES
    from lapha.sandbox.protocol import Limits as Limits
    from lapha.sandbox.protocol import RunResult as RunResult
    from lapha.sandbox.protocol import Sandbox as Sandbox
    from lapha.sandbox.protocol import SandboxError as SandboxError
    from lapha.sandbox.protocol import SandboxSession as SandboxSession
    from lapha.sandbox.protocol import SandboxUnavailable as SandboxUnavailable
    from lapha.sandbox.server import create_app as create_app


__getattr__, __dir__ = lazy_exports(__name__, {name: f"{__name__}.{module}" for name, module in _EXPORTS.items()})
