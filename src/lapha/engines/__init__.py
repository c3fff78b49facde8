"""Engines: where continuations, h(s) and v̂(s) come from.

Every engine is a `lapha.types.Policy`, and an `Evaluator` where it can be. Each imports only its own backend, when
it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lapha._imports import lazy_exports

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


__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
