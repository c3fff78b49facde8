"""Models as the command line names them: ``tiny``, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lapha._checks import check_choice
from lapha._imports import require
from lapha.types import Environment, SamplingParams

TINY = "tiny"
TOOLS = ("none", "python")


@dataclass
class LoadedModel:
    """An engine with what suits its model.

    Attributes:
        name: as given.
        engine: policy and evaluator.
        environment: the agent's, with its tools.
        plain_environment: without tools.
        breadth, depth_limit, sampling: what the model is searched with unless the user says otherwise.
        has_value_head: False where v̂ is 0.5 everywhere, so that only the policy's own probabilities guide a search.
    """

    name: str
    engine: Any
    environment: Environment
    plain_environment: Environment
    breadth: int
    depth_limit: int
    sampling: SamplingParams
    has_value_head: bool


def load_model(
    name: str,
    *,
    value_head: str | None = None,
    gguf_file: str | None = None,
    tools: str = "none",
    depth_limit: int | None = None,
    context_limit: int = 4096,
    sandbox: str = "monty",
) -> LoadedModel:
    """Load a model for searching.

    Raises:
        ValueError: no such model, no chat template, unknown tools, or an extra is missing.
    """
    check_choice(tools, "tools", TOOLS)
    require("transformers", extra="llm")
    from lapha.agent import ChatEnvironment
    from lapha.cli._progress import quiet_libraries
    from lapha.engines import TransformersEngine

    quiet_libraries()

    if name == TINY:
        from lapha.tiny import BREADTH, DEPTH_LIMIT, SEARCH, load_tiny

        model, tokenizer, head = load_tiny()
        engine = TransformersEngine(model, tokenizer, head)
        breadth, depth, sampling, has_head = BREADTH, DEPTH_LIMIT, SEARCH, True
    else:
        engine = TransformersEngine.from_pretrained(
            name, value_head=value_head or _head_beside(name), gguf_file=gguf_file
        )
        has_head = value_head is not None or _head_beside(name) is not None
        breadth, depth, sampling = 6, 6, SamplingParams(temperature=0.7, top_p=0.95, top_k=0, repetition_penalty=1.0)
    depth = depth_limit or depth
    plain = ChatEnvironment(engine.tokenizer, depth_limit=depth, context_limit=context_limit)
    environment = plain
    if tools == "python":
        from lapha.sandbox import create_sandbox

        environment = ChatEnvironment(
            engine.tokenizer, depth_limit=depth, context_limit=context_limit, sandbox=create_sandbox(sandbox)
        )
    return LoadedModel(name, engine, environment, plain, breadth, depth, sampling, has_head)


def _head_beside(name: str) -> str | None:
    """The folder of the model, if it holds a value head."""
    from pathlib import Path

    return name if (Path(name) / "value_head.safetensors").is_file() else None
