"""Which implementation runs: ``auto`` picks and says what it picked, an explicit choice runs or raises."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from lapha._checks import check_choice
from lapha._imports import require
from lapha.kernels.precision import PRECISIONS

logger = logging.getLogger(__name__)

OPERATIONS = ("pairwise_dist", "nearest", "knn", "pool_latents")
BACKENDS = ("auto", "torch", "triton")
# What each backend can compute inner products in; pooling has none, and takes "ieee".
_PRECISIONS = {"torch": ("ieee", "bf16"), "triton": ("ieee", "tf32x3", "bf16")}
_LEAST_CAPABILITY = (8, 0)

_last = threading.local()


@dataclass(frozen=True, slots=True)
class Choice:
    """What ran, or would run, and why.

    Attributes:
        operation: ``"pairwise_dist"``, ``"nearest"``, ``"knn"`` or ``"pool_latents"``.
        backend: ``"torch"`` or ``"triton"``.
        precision: ``"ieee"``, ``"tf32x3"`` or ``"bf16"``.
        reason: one sentence for people.
    """

    operation: str
    backend: str
    precision: str
    reason: str


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter (``TRITON_INTERPRET=1``), on CPU tensors too."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def choose(
    operation: str, device: torch.device, dtype: torch.dtype, backend: str = "auto", precision: str = "ieee"
) -> Choice:
    """Decide which backend runs `operation` on tensors of this device and dtype, and remember it for `last_choice`.

    Raises:
        ValueError: an unknown name, or a backend or precision that cannot run here; the message says why not.
        MissingExtraError: ``backend="triton"`` and triton is not installed.
    """
    check_choice(operation, "operation", OPERATIONS)
    check_choice(backend, "backend", BACKENDS)
    check_choice(precision, "precision", PRECISIONS)
    choice = _choose(operation, device, dtype, backend, precision)
    if getattr(_last, "choice", None) != choice:
        logger.info("%s: %s backend, %s (%s)", operation, choice.backend, choice.precision, choice.reason)
    _last.choice = choice
    return choice


def _choose(operation: str, device: torch.device, dtype: torch.dtype, backend: str, precision: str) -> Choice:
    if backend == "triton":
        require("triton", extra="dev")
        obstacle = _triton_obstacle(device, dtype)
        if obstacle is not None:
            raise ValueError(f"backend: expected one that can run here, got 'triton', but {obstacle}")
        return Choice(operation, "triton", precision, "asked for")
    obstacle = _torch_obstacle(precision)
    if backend == "torch":
        if obstacle is not None:
            raise ValueError(f"precision: expected one that the torch backend has, got {precision!r}: {obstacle}")
        return Choice(operation, "torch", precision, "asked for")
    if importlib.util.find_spec("triton") is None:
        why_not: str | None = "triton is not installed"
    elif device.type != "cuda":
        why_not = f"the tensors are on {device.type}"
    else:
        why_not = _triton_obstacle(device, dtype)
    if why_not is None:
        return Choice(operation, "triton", precision, f"{device.type} tensors and triton is installed")
    if obstacle is not None:
        raise ValueError(f"precision: expected one that can run here, got {precision!r}: {obstacle}, and {why_not}")
    return Choice(operation, "torch", precision, why_not)


def _triton_obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton kernels cannot run on such tensors, or None if they can."""
    if dtype == torch.float64:
        return "its kernels compute in float32 and the input is float64"
    if interpreting():
        return None
    if device.type != "cuda":
        return f"it needs a CUDA device and the tensors are on {device.type}"
    if torch.version.hip is not None:
        return "its kernels are tuned and tested for NVIDIA devices only"
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        return f"it needs compute capability 8.0 and the device has {capability[0]}.{capability[1]}"
    return None


def _torch_obstacle(precision: str) -> str | None:
    if precision not in _PRECISIONS["torch"]:
        return "three-pass TF32 is a tensor-core mode that only the triton backend has"
    return None


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """What makes `device` the current one where it is a GPU: Triton launches on the current device, not the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def last_choice() -> Choice | None:
    """The choice that this thread's latest kernel call made; None before the first."""
    return getattr(_last, "choice", None)


def explain(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, precision: str = "ieee") -> str:
    """One line an operation: which backend ``auto`` takes for such tensors, and why."""
    before = last_choice()
    lines = []
    for operation in OPERATIONS:
        choice = _choose(operation, torch.device(device), dtype, "auto", precision)
        lines.append(f"{operation}: {choice.backend}, {choice.precision} ({choice.reason})")
    _last.choice = before
    return "\n".join(lines)
