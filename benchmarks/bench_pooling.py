"""Pooling hidden states into latents: (B, L, H) padded and (T, H) packed, against a copy of the same bytes.

Contestants: a masked float32 mean as it is usually written (which makes a float32 copy of the hidden states) with
the latent's direction and radius after it, the same under torch.compile, and lapha's back ends. Pooling only reads,
and a copy reads and writes; both are counted as the bytes they move.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.alternatives import compiled_masked_mean, masked_mean
from benchmarks.ceilings import copy_ceiling
from benchmarks.harness import Case, Contestant, Session, Skipped
from lapha import kernels
from lapha.kernels.registry import BACKENDS, choose

_SIZES = {
    "smoke": [(4, 16, 32), (3, 33, 48)],
    "cpu": [(8, 512, 1536), (16, 2048, 1536)],
    "cuda": [(16, 1024, 1536), (64, 4096, 1536), (256, 2048, 4096)],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="of the input")


def run(args: argparse.Namespace, session: Session) -> None:
    dtype = getattr(torch, args.dtype)
    for b, length, h in _SIZES["smoke" if args.sizes == "smoke" else session.device.type]:
        generator = torch.Generator().manual_seed(b)
        hidden = torch.randn(b, length, h, generator=generator).to(device=session.device, dtype=dtype)
        lengths = torch.randint(length // 2, length + 1, (b,), generator=generator).to(session.device)
        root = torch.randn(h, generator=generator).to(session.device)
        padded, packed = _padded(hidden, lengths, root), _packed(hidden, lengths, root)
        session.measure(Case({"B": b, "L": length, "H": h}, args.dtype, padded))
        session.measure(Case({"T": int(lengths.sum()), "B": b, "H": h}, f"{args.dtype} packed", packed))


def _padded(hidden: torch.Tensor, lengths: torch.Tensor, root: torch.Tensor) -> list[Contestant | Skipped]:
    # all tokens count: every byte has to be read
    mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    entries: list[Contestant | Skipped] = [copy_ceiling(hidden)]
    exact = hidden.double().mean(1)
    moved = float(hidden.nbytes)
    for make in (masked_mean, compiled_masked_mean):
        name, function = make(hidden, mask, root)
        if isinstance(function, str):
            entries.append(Skipped(name, function))
        else:
            entries.append(Contestant(name, function, lambda out: _error(out[0], exact), moved_bytes=moved))
    for backend in _backends(hidden):

        def ours(backend: str = backend) -> kernels.PooledLatents:
            return kernels.pool_latents(hidden, mask, root=root, backend=backend)

        name, labels = f"lapha {backend}", {"backend": backend}
        entries.append(Contestant(name, ours, lambda out: _error(out.mean, exact), moved_bytes=moved, labels=labels))
    return entries


def _packed(hidden: torch.Tensor, lengths: torch.Tensor, root: torch.Tensor) -> list[Contestant | Skipped]:
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    tokens = hidden[positions < lengths[:, None]]
    starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    exact = torch.stack([part.double().mean(0) for part in tokens.split(lengths.tolist())])
    entries: list[Contestant | Skipped] = [copy_ceiling(tokens)]
    for backend in _backends(hidden):

        def ours(backend: str = backend) -> kernels.PooledLatents:
            return kernels.pool_latents(tokens, cu_seqlens=starts, root=root, backend=backend)

        name, labels = f"lapha {backend}", {"backend": backend}
        work = {"moved_bytes": float(tokens.nbytes), "labels": labels}
        entries.append(Contestant(name, ours, lambda out: _error(out.mean, exact), **work))
    return entries


def _backends(hidden: torch.Tensor) -> list[str]:
    found = []
    for backend in BACKENDS:
        try:
            found.append(choose("pool_latents", hidden.device, hidden.dtype, backend).backend)
        except ValueError:  # cannot run here
            continue
    return sorted(set(found))


def _error(mean: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative error of the worst pooled state, as a vector."""
    return float(((mean.double() - exact).norm(dim=1) / exact.norm(dim=1)).max())
