"""The checkpoint folder of the embedded policy: writing it, and loading the packaged one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lapha._checks import check, check_choice
from lapha._imports import require
from lapha.latent import ValueHead

HEADS = "heads"
METRICS = "metrics.json"


def tiny_path() -> Path:
    """The packaged checkpoint folder; `AutoModelForCausalLM.from_pretrained(tiny_path())` loads it in float32."""
    return Path(__file__).parent / "checkpoint"


def load_tiny(path: str | Path | None = None, value_target: str | None = None) -> tuple[Any, Any, ValueHead]:
    """The embedded policy, its tokenizer and its value head, on the CPU in float32 and evaluation mode.

    Args:
        path: a checkpoint folder that the build wrote; None for the packaged one.
        value_target: which of the two trained heads, ``"success_rate"`` or ``"potential"``; None for the one that
            guides better on held-out problems, which lies in the folder's `value_head/`.

    Raises:
        ValueError: no such folder or head.
        MissingExtraError: transformers is not installed.
    """
    transformers = require("transformers", "llm")
    folder = tiny_path() if path is None else Path(path)
    check((folder / "config.json").is_file(), "path", "a checkpoint folder with config.json", str(folder))
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    if value_target is None:
        return model, tokenizer, ValueHead.from_pretrained(folder).float()
    check_choice(value_target, "value_target", ("success_rate", "potential"))
    return model, tokenizer, ValueHead.from_pretrained(folder / HEADS / value_target).float()


def tiny_metrics(path: str | Path | None = None) -> dict[str, Any]:
    """What the build measured on held-out problems (`metrics.json` of the packaged checkpoint, or of `path`)."""
    return json.loads(((tiny_path() if path is None else Path(path)) / METRICS).read_text())


def save_checkpoint(folder: Path, lm: Any, tokenizer: Any, heads: Mapping[str, torch.nn.Module], shipped: str) -> None:
    """Write model, tokenizer and heads. Weights are stored in half precision; the config says to load in float32.

    Args:
        folder: where to write; made if absent.
        lm: the `LlamaForCausalLM`.
        tokenizer: its tokenizer.
        heads: linear heads by value target.
        shipped: the target whose head becomes the folder's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = type(lm)(lm.config).half()
    stored.load_state_dict(lm.state_dict())
    stored.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "float32", "bos_token_id": None}
    config |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tokenizer.save_pretrained(folder)
    for target, linear in heads.items():
        head = ValueHead(lm.config.hidden_size, value_target=target)
        head.linear.load_state_dict(linear.state_dict())
        head.save_pretrained(folder / HEADS / target)
        if target == shipped:
            head.save_pretrained(folder)
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # written as private files, but a package's data is for everyone


def round_to_half(module: torch.nn.Module) -> None:
    """Round the weights to what the checkpoint stores, so that what is measured is what is loaded."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())
