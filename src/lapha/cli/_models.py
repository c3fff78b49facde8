"""Models as the command line names them: ``tiny``, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from lapha._checks import check
from lapha._imports import require
from lapha._options import build
from lapha.evaluation.config import TINY, ModelConfig
from lapha.search import SearchConfig
from lapha.types import Environment, SamplingParams

CHAT_SAMPLING = SamplingParams(temperature=0.7, top_p=0.95, top_k=0, repetition_penalty=1.0)
"""How a chat model is sampled unless the user says otherwise: widely enough that siblings differ."""


SHOWN_DEFAULTS = dict.fromkeys(
    (
        "breadth",
        "depth_limit",
        "c_puct",
        "max_expands",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "repetition_penalty",
    ),
    "the model's",
) | {"answer": "value, or vote without a head", "simulations": "32"}
"""Defaults in words, of options whose default `resolve` takes from the model."""


class RunConfig(Protocol):
    """A configuration with a model and a search."""

    @property
    def model(self) -> ModelConfig: ...

    @property
    def search(self) -> SearchConfig: ...


C = TypeVar("C", bound=RunConfig)


def resolve(config: type[C], given: Mapping[str, Any]) -> C:
    """A configuration from what was given; all else is the class's default, or what suits the model.

    Raises:
        ValueError: a value that cannot work, by name.
    """
    first = build(config, given)
    search = search_defaults(first.model, first.search.simulations)
    base: C = cast(Any, replace)(config(), search=search)
    return build(config, given, base)


def search_defaults(model: ModelConfig, simulations: int) -> SearchConfig:
    """The search that suits a model; nothing is loaded for it."""
    path = _path(model.model)
    answer: Any = "value" if _has_head(model.value_head, path) else "vote"
    if model.model != TINY:
        return SearchConfig(simulations=simulations, sampling=CHAT_SAMPLING, answer=answer)
    from lapha.tiny import BREADTH, C_PUCT, DEPTH_LIMIT, MAX_EXPANDS, SEARCH

    return SearchConfig(
        simulations=simulations,
        breadth=BREADTH,
        depth_limit=DEPTH_LIMIT,
        c_puct=C_PUCT,
        max_expands=MAX_EXPANDS,
        sampling=SEARCH,
        answer=answer,
    )


@dataclass
class LoadedModel:
    """An engine with what suits its model.

    Attributes:
        name: as given.
        engine: policy and evaluator.
        environment: the agent's, with its tools.
        plain_environment: without tools.
        has_value_head: False where v̂ is 0.5 everywhere, so that only the policy's own probabilities guide a search.
        sandbox: of the tools, or None.
    """

    name: str
    engine: Any
    environment: Environment
    plain_environment: Environment
    has_value_head: bool
    sandbox: Any = None

    def close(self) -> None:
        """Release the engine and the sandbox."""
        for part in (self.engine, self.sandbox):
            if hasattr(part, "aclose"):
                asyncio.run(part.aclose())
            elif part is not None:
                part.close()


def load_model(model: ModelConfig, depth_limit: int | None) -> LoadedModel:
    """Load a model for searching.

    Args:
        model: which, and its tools.
        depth_limit: most steps of one line of reasoning; None for the model's own.

    Raises:
        ValueError: no such model, no chat template, or an extra is missing.
    """
    require("transformers", extra="llm")
    from lapha.agent import REASONING_STEPS, ChatEnvironment, ReasoningEnvironment
    from lapha.cli._progress import quiet_libraries

    quiet_libraries()
    path = _path(model.model)
    head = _head(model.value_head, path)
    if model.server:
        engine = _server_engine(path, model.server, model.pooling_server, head)
    else:
        from lapha.engines import TransformersEngine

        pooling = list(model.pooling_server)
        check(not pooling, "pooling_server", "none without a server to sample from", pooling)
        engine = TransformersEngine.from_pretrained(path, value_head=head, gguf_file=model.gguf_file)
    plain: Environment
    if model.protocol == "plain":
        check(model.tools == "none", "tools", "'none' with the protocol 'plain'", repr(model.tools))
        plain = ReasoningEnvironment(
            engine.tokenizer, depth_limit=depth_limit or REASONING_STEPS, context_limit=model.context_limit
        )
    else:
        plain = ChatEnvironment(engine.tokenizer, depth_limit=depth_limit, context_limit=model.context_limit)
    loaded = LoadedModel(model.model, engine, plain, plain, head is not None)
    if model.tools == "python":
        from lapha.sandbox import create_sandbox

        loaded.sandbox = create_sandbox(model.sandbox)
        loaded.environment = ChatEnvironment(
            engine.tokenizer, depth_limit=depth_limit, context_limit=model.context_limit, sandbox=loaded.sandbox
        )
    return loaded


def _path(name: str) -> str:
    if name != TINY:
        return name
    from lapha.tiny import tiny_path

    return str(tiny_path())


def _has_head(value_head: str | None, path: str) -> bool:
    from lapha.latent import ValueHead

    return value_head is not None or bool(ValueHead.find(path))


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
