"""Models as the command line names them: ``tiny``, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapha._checks import check, check_choice
from lapha._imports import require
from lapha.types import Environment, SamplingParams

TINY = "tiny"
TOOLS = ("none", "python")
CHAT_SAMPLING = SamplingParams(temperature=0.7, top_p=0.95, top_k=0, repetition_penalty=1.0)
"""How a chat model is sampled unless the user says otherwise: widely enough that siblings differ."""


@dataclass
class LoadedModel:
    """An engine with what suits its model.

    Attributes:
        name: as given.
        engine: policy and evaluator.
        environment: the agent's, with its tools.
        plain_environment: without tools.
        breadth, depth_limit, sampling, c_puct, max_expands: what the model is searched with unless the user says
            otherwise.
        has_value_head: False where v̂ is 0.5 everywhere, so that only the policy's own probabilities guide a search.
        sandbox: of the tools, or None.
    """

    name: str
    engine: Any
    environment: Environment
    plain_environment: Environment
    breadth: int
    depth_limit: int
    sampling: SamplingParams
    has_value_head: bool
    c_puct: float = 1.0
    max_expands: int = 2
    sandbox: Any = None

    def close(self) -> None:
        """Release the engine and the sandbox."""
        for part in (self.engine, self.sandbox):
            if hasattr(part, "aclose"):
                asyncio.run(part.aclose())
            elif part is not None:
                part.close()


def load_model(
    name: str,
    *,
    value_head: str | None = None,
    gguf_file: str | None = None,
    tools: str = "none",
    sandbox: str = "monty",
    depth_limit: int | None = None,
    context_limit: int = 4096,
    servers: Sequence[str] = (),
    pooling_servers: Sequence[str] = (),
) -> LoadedModel:
    """Load a model for searching.

    Args:
        name: ``"tiny"``, a folder, or a name; of the tokenizer where `servers` sample.
        value_head: a folder or a reference's head file; default: the head beside the model.
        gguf_file: name of a GGUF file in the model's folder.
        tools: ``"none"`` or ``"python"``.
        sandbox: back end or address of the sandbox for ``"python"``.
        depth_limit: most steps; default: the model's.
        context_limit: most tokens of a context.
        servers: vLLM servers to sample from; empty to load the model here.
        pooling_servers: vLLM pooling servers for h(s); needed with `servers`.

    Raises:
        ValueError: no such model, no chat template, unknown tools, or an extra is missing.
    """
    check_choice(tools, "tools", TOOLS)
    require("transformers", extra="llm")
    from lapha.agent import ChatEnvironment
    from lapha.cli._progress import quiet_libraries

    quiet_libraries()
    breadth, depth, sampling = _defaults(name)
    path = _path(name)
    head = _head(value_head, path)
    if servers:
        engine = _server_engine(path, servers, pooling_servers, head)
    else:
        from lapha.engines import TransformersEngine

        check(not pooling_servers, "pooling_server", "none without a server to sample from", list(pooling_servers))
        engine = TransformersEngine.from_pretrained(path, value_head=head, gguf_file=gguf_file)
    depth = depth if depth_limit is None else depth_limit
    plain = ChatEnvironment(engine.tokenizer, depth_limit=depth, context_limit=context_limit)
    loaded = LoadedModel(name, engine, plain, plain, breadth, depth, sampling, head is not None)
    if name == TINY:
        from lapha.tiny import C_PUCT, MAX_EXPANDS

        loaded.c_puct, loaded.max_expands = C_PUCT, MAX_EXPANDS
    if tools == "python":
        from lapha.sandbox import create_sandbox

        loaded.sandbox = create_sandbox(sandbox)
        loaded.environment = ChatEnvironment(
            engine.tokenizer, depth_limit=depth, context_limit=context_limit, sandbox=loaded.sandbox
        )
    return loaded


def _defaults(name: str) -> tuple[int, int, SamplingParams]:
    """(breadth, depth limit, sampling) that suit a model."""
    if name != TINY:
        return 6, 6, CHAT_SAMPLING
    from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH

    return BREADTH, DEPTH_LIMIT, SEARCH


def _path(name: str) -> str:
    if name != TINY:
        return name
    from lapha.tiny import tiny_path

    return str(tiny_path())


def _head(value_head: str | None, path: str) -> Any:
    """The value head that was asked for, or the one beside the model, or None."""
    from lapha.latent import ValueHead

    if value_head is None:
        return ValueHead.from_pretrained(path) if ValueHead.find(path) else None
    if Path(value_head).suffix in (".pt", ".bin", ".pth"):
        from lapha.evaluation.reference import load_reference_head

        return load_reference_head(value_head)
    check(Path(value_head).exists(), "value_head", "a folder with a value head, or a head's file", value_head)
    return ValueHead.from_pretrained(value_head)


def _server_engine(path: str, servers: Sequence[str], pooling_servers: Sequence[str], head: Any) -> Any:
    """An engine over vLLM servers; without a head, v̂ is 0.5 everywhere."""
    from lapha.engines import VLLMServerEngine
    from lapha.latent import ValueHead

    check(len(pooling_servers) > 0, "pooling_server", "at least one address beside --server, to give h(s)", "none")
    if head is None:
        config = require("transformers", extra="llm").AutoConfig.from_pretrained(path)
        head = ValueHead(config.get_text_config().hidden_size)
    return VLLMServerEngine(list(servers), tokenizer=path, pooling_urls=list(pooling_servers), value_head=head)
