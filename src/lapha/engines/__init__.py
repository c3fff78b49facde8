"""Engines: where continuations, h(s) and v̂(s) come from.

Every engine is a `lapha.types.Policy`, and an `Evaluator` where it can be. Each imports only its own backend, when
it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "EngineError": "lapha.engines.errors",
    "PoolingServer": "lapha.engines.vllm_server",
    "RequestRefusedError": "lapha.engines.errors",
    "RetryPolicy": "lapha.engines.server_pool",
    "ScriptedEngine": "lapha.engines.scripted",
    "TransformersEngine": "lapha.engines.transformers_engine",
    "VLLMLocalEngine": "lapha.engines.vllm_local",
    "VLLMServerEngine": "lapha.engines.vllm_server",
}

__all__ = sorted(_EXPORTS)

if TYPE_CHECKING:
    from lapha.engines.errors import EngineError as EngineError
    from lapha.engines.errors import RequestRefusedError as RequestRefusedError
    from lapha.engines.scripted import ScriptedEngine as ScriptedEngine
    from lapha.engines.server_pool import RetryPolicy as RetryPolicy
    from lapha.engines.transformers_engine import TransformersEngine as TransformersEngine
    from lapha.engines.vllm_local import VLLMLocalEngine as VLLMLocalEngine
    from lapha.engines.vllm_server import PoolingServer as PoolingServer
    from lapha.engines.vllm_server import VLLMServerEngine as VLLMServerEngine


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'lapha.engines' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
