"""Loading models by name or path, with messages that say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from lapha._checks import check
from lapha._imports import require
from lapha.latent import ValueHead


def load_model(
    name_or_path: str | os.PathLike[str],
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    gguf_file: str | None,
    require_chat_template: bool,
) -> tuple[Any, Any]:
    """The causal LM, in evaluation mode on its device, and its tokenizer; arguments as `from_pretrained`."""
    transformers = require("transformers", extra="llm")
    if gguf_file is not None:
        require("gguf", extra="llm")
    name = os.fspath(name_or_path)
    check(bool(name), "name_or_path", "a folder or a model's name", repr(name))
    device = torch.device(device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu"))
    source = {"gguf_file": gguf_file} if gguf_file is not None else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **source)
        has_template = bool(getattr(tokenizer, "chat_template", None))
        check(
            has_template or not require_chat_template, "name_or_path",
            "a model with a chat template (an instruction-tuned one)", repr(name),
        )  # fmt: skip
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=_dtype(dtype, device), **source)
    except OSError as error:
        raise ValueError(
            f"name_or_path: expected a folder with a model or a model's name on the Hugging Face hub, got {name!r}"
            f" ({' '.join(str(error).split())[:200]})"
        ) from error
    return model.to(device).eval(), tokenizer


def load_value_head(value_head: ValueHead | str | os.PathLike[str] | None) -> ValueHead | None:
    """A head as given, or the one saved in a folder."""
    if value_head is None or isinstance(value_head, ValueHead):
        return value_head
    path = Path(value_head)
    check(path.exists(), "value_head", "a ValueHead, or a folder that one was saved in", repr(str(path)))
    return ValueHead.from_pretrained(path)


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> str | torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"dtype: expected a torch dtype, its name, or 'auto', got {dtype!r}")
    return found
