"""Names for contents: equal contents have equal names, in any process and on any device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def digest(*contents: bytes) -> str:
    """A name for bytes, 32 hex digits."""
    total = hashlib.blake2b(digest_size=16)
    for content in contents:
        total.update(len(content).to_bytes(8, "little"))
        total.update(content)
    return total.hexdigest()


def json_digest(value: Any) -> str:
    """A name for JSON values, whatever the order of their keys."""
    return digest(json.dumps(value, sort_keys=True, default=str).encode())


def tensor_digest(tensor: torch.Tensor) -> str:
    """A name for a tensor's dtype, shape and bytes, 32 hex digits."""
    whole = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.layout}".encode())
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return whole.hexdigest()[:32]  # no bytes to read as they stand
    with torch.no_grad():
        content = tensor.detach().cpu().contiguous().reshape(-1)
        if content.numel():
            whole.update(content.view(torch.uint8).numpy().data)
    return whole.hexdigest()[:32]


def weights_digest(state: Mapping[str, Any]) -> str:
    """A name for all tensors of a state dict, 32 hex digits. Reads every byte: about a second for two gigabytes."""
    names = sorted(name for name, value in state.items() if isinstance(value, torch.Tensor))
    with ThreadPoolExecutor(4) as pool:  # hashing lets other threads run
        return digest(*pool.map(lambda name: f"{name} {tensor_digest(state[name])}".encode(), names))
