"""A checkpoint folder that transformers and vLLM load as it is, with the value head in a file of its own."""

from __future__ import annotations

import filecmp
import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lapha.latent import ValueHead

PREFIX = "value_head."

logger = logging.getLogger(__name__)

_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


# In a model with adapters the trained head is the wrapper's copy; `original_module` is what it started from.
_HEAD_ENTRY = re.compile(r"(?:^|\.)value_head\.(?:modules_to_save\.\w+\.)?(linear\.\w+)$")


def split_state_dict(state_dict: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(policy's entries, value head's entries as `ValueHead` names them), with or without adapters."""
    policy = {name: tensor for name, tensor in state_dict.items() if PREFIX not in name}
    head = {found[1]: tensor for name, tensor in state_dict.items() if (found := _HEAD_ENTRY.search(name))}
    return policy, head


def save_value_head(folder: str, state: dict[str, torch.Tensor], value_target: str) -> None:
    """Write the value head's parameters into `folder` in the format of `ValueHead.save_pretrained`."""
    weight = state["linear.weight"]
    head = ValueHead(weight.shape[1], value_target=value_target)
    head.load_state_dict({name: tensor.detach().float().cpu() for name, tensor in state.items()})
    head.save_pretrained(folder)


def load_value_head(folder: str, hidden_size: int) -> ValueHead | None:
    """The value head beside a model's weights, or None if `folder` holds none.

    Raises:
        ValueError: the head's hidden size is not the model's.
    """
    if not folder or ValueHead.find(folder) is None:
        return None
    head = ValueHead.from_pretrained(folder)
    if head.linear.in_features != hidden_size:
        raise ValueError(f"value head in {folder}: expected hidden size {hidden_size}, got {head.linear.in_features}")
    return head


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint in `folder` that was written to its end, or None.

    The trainer's state is written last: a checkpoint that a kill cut off has none, or half of one. Such checkpoints are
    passed over with a warning.
    """
    steps = {
        int(found[1]): path for path in Path(folder).glob("checkpoint-*") if (found := _CHECKPOINT.search(path.name))
    }
    for _, path in sorted(steps.items(), reverse=True):
        if _is_whole(path):
            return str(path)
        logger.warning("%s is passed over: it was cut off while it was written", path)
    return None


# what a checkpoint holds beside the model, for going on
_FOR_RESUMING = re.compile(
    r"^(optimizer|scheduler|scaler|rng_state|trainer_state|entropy_ctrl|latest|zero_to_fp32|global_step)"
)


def export_checkpoint(checkpoint: Path, folder: Path) -> bool:
    """Copy a checkpoint's model into `folder`, unless one with these weights is there; says whether anything was copied."""
    files = [
        path.relative_to(checkpoint)
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and not _FOR_RESUMING.match(path.relative_to(checkpoint).parts[0])
    ]
    missing = [name for name in files if not _same(checkpoint / name, folder / name)]
    for name in missing:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(checkpoint / name, folder / name)
    return bool(missing)


def _same(first: Path, second: Path) -> bool:
    if not second.is_file():
        return False
    if filecmp.cmp(first, second, shallow=False):
        return True
    # safetensors writes a header's entries in any order
    return first.suffix == ".safetensors" and _header(first) == _header(second) and _tensors_equal(first, second)


def _header(path: Path) -> Any:
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def _tensors_equal(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return all(torch.equal(one[name], other[name]) for name in one)


def _is_whole(checkpoint: Path) -> bool:
    state = checkpoint / "trainer_state.json"
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True
