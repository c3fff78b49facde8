"""The value head: v̂(s) = σ(w·h(s) + b) on the uncentred pooled state, and its loss."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from lapha._checks import check, check_choice, check_float_tensor
from lapha._store import read_tensors, write_tensors
from lapha._typed import typed

# In a folder of its own: vLLM reads every .safetensors file that lies beside a model's weights.
FOLDER = "value_head"
FILE_NAME = "value_head.safetensors"
FORMAT = "lapha.ValueHead"
VERSION = 2
VALUE_TARGETS = ("potential", "success_rate", "mixed")


class ValueHead(nn.Module):
    """A linear read-out of the pooled hidden state.

    A fresh head has zero weights, so that it says 0.5 everywhere: a head that knows nothing should not steer a search.

    Args:
        hidden_size: H of the model.
        pooling: how h(s) is made of token states; only ``"mean"`` is defined.
        curvature: c of the space in which the head's target was computed.
        value_target: what the head is trained to predict: ``"potential"`` (the paper's), ``"success_rate"`` of the
            subtree, or ``"mixed"``.

    Raises:
        ValueError: a value outside its range.
    """

    @typed
    def __init__(
        self,
        hidden_size: int,
        *,
        pooling: str = "mean",
        curvature: float = 1.0,
        value_target: str = "potential",
    ) -> None:
        super().__init__()
        check(hidden_size >= 1, "hidden_size", "an integer >= 1", hidden_size)
        check_choice(pooling, "pooling", ("mean",))
        check_choice(value_target, "value_target", VALUE_TARGETS)
        check(0 < curvature < float("inf"), "curvature", "a number > 0", curvature)
        self.hidden_size = hidden_size
        self.pooling = pooling
        self.curvature = float(curvature)
        self.value_target = value_target
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """w·h + b, (…, H) → (…,). Computed in the head's own dtype.

        Raises:
            ValueError: last dimension other than `hidden_size`.
        """
        check_float_tensor(h, "h")
        good = h.dim() >= 1 and h.shape[-1] == self.hidden_size
        check(good, "h", f"shape (…, {self.hidden_size})", f"shape {tuple(h.shape)}")
        return self.linear(h.to(self.linear.weight.dtype)).squeeze(-1)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """v̂(s) in (0, 1), (…, H) → (…,). Takes the uncentred pooled state h(s), not the latent."""
        return torch.sigmoid(self.logits(h))

    def extra_repr(self) -> str:
        return f"pooling={self.pooling!r}, curvature={self.curvature}, value_target={self.value_target!r}"

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        """Write `value_head/value_head.safetensors` below `directory` (made if absent), atomically; returns its path.

        `directory` may hold a model's weights: transformers and vLLM load them as before.
        """
        path = Path(directory) / FOLDER / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "hidden_size": str(self.hidden_size),
            "pooling": self.pooling,
            "scale": "1/sqrt(hidden_size)",
            "curvature": repr(self.curvature),
            "value_target": self.value_target,
        }
        tensors = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        write_tensors(path, tensors, FORMAT, VERSION, metadata)
        return path

    @staticmethod
    def find(path: str | os.PathLike[str]) -> Path | None:
        """The head's file for a `path` as `from_pretrained` takes it, or None if there is none."""
        start = Path(path)
        candidates = (start, start / FOLDER / FILE_NAME, start / FILE_NAME)
        return next((file for file in candidates if file.is_file()), None)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> ValueHead:
        """Read a head that `save_pretrained` wrote.

        Args:
            path: the folder that it was saved into, the file itself, or the file's own folder.

        Raises:
            ValueError: no such file, a truncated one, or one that is not a value head (the message names the file).
        """
        file = cls.find(path) or Path(path)
        tensors, metadata = read_tensors(file, FORMAT, VERSION)
        try:
            hidden_size, curvature = int(metadata["hidden_size"]), float(metadata["curvature"])
            pooling, target = metadata["pooling"], metadata["value_target"]
        except (KeyError, ValueError) as error:
            raise ValueError(f"path: expected a value head with its metadata, got {file} ({error})") from error
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        expected = {"linear.weight": (1, hidden_size), "linear.bias": (1,)}
        check(shapes == expected, "path", f"a value head with tensors {expected}", f"{file} with {shapes}")
        head = cls(hidden_size, pooling=pooling, curvature=curvature, value_target=target)
        head.to(tensors["linear.weight"].dtype)
        head.load_state_dict(tensors)
        return head


@typed
def value_loss(
    pred: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of v̂ against V over the states that count (method: value head).

    Args:
        pred: (N,) v̂(s), in (0, 1).
        target: (N,) V(s) or another target in [0, 1]; NaN is allowed where `mask` is False.
        mask: (N,) True at states that count. None counts all.
        weights: (N,) non-negative weights of the states; the loss is divided by their sum.

    Returns:
        () float32. Zero, and still connected to `pred`, if nothing counts: a rank without states can call backward.

    Raises:
        ValueError: shapes that differ, a target outside [0, 1] or a negative weight where the mask is True.
    """
    check_float_tensor(pred, "pred")
    check_float_tensor(target, "target")
    for name, tensor in (("target", target), ("mask", mask), ("weights", weights)):
        if tensor is not None:
            check(not tensor.is_complex(), name, "real numbers", tensor.dtype)
            check(tensor.shape == pred.shape, name, f"shape {tuple(pred.shape)}", f"shape {tuple(tensor.shape)}")
    counted = torch.ones_like(pred, dtype=torch.bool) if mask is None else mask.to(torch.bool)
    goal = target.detach().float()
    inside = (goal >= 0) & (goal <= 1)
    check(bool((inside | ~counted).all()), "target", "numbers in [0, 1] where the mask is True", "a number outside")
    weight = counted.float()
    if weights is not None:
        good = torch.isfinite(weights) & (weights >= 0)
        check(bool((good | ~counted).all()), "weights", "finite numbers >= 0", "a number outside")
        weight = torch.where(counted, weights.detach().float(), weight)
    # where, not a product: a NaN target that the mask excludes must reach neither the loss nor the gradient
    error = torch.where(counted, pred.float() - torch.where(counted, goal, 0), 0)
    total = weight.sum()
    return (weight * error.square()).sum() / torch.where(total > 0, total, 1)
