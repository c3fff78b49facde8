"""What the machine can do at best: a matrix product of the same shape, a copy of the same bytes."""

from __future__ import annotations

import torch

from benchmarks.harness import Contestant


def matmul_ceilings(u: torch.Tensor, t: torch.Tensor) -> list[Contestant]:
    """Products (N, D) × (D, M): float32 everywhere; TF32 and bfloat16 on CUDA."""
    flops, result = 2.0 * u.shape[0] * t.shape[0] * u.shape[1], 4 * u.shape[0] * t.shape[0]
    out = torch.empty(u.shape[0], t.shape[0], device=u.device)

    def float32() -> torch.Tensor:
        return torch.mm(u, t.T, out=out)

    entries = [Contestant("matmul float32", float32, flops=flops, ceiling=True)]
    if u.device.type != "cuda":
        return entries
    narrow = [z.to(torch.bfloat16) for z in (u, t)]

    def tf32() -> torch.Tensor:
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return torch.mm(u, t.T, out=out)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed

    def bfloat16() -> torch.Tensor:
        return torch.mm(narrow[0], narrow[1].T)

    entries.append(Contestant("matmul tf32", tf32, flops=flops, ceiling=True))
    entries.append(Contestant("matmul bfloat16", bfloat16, flops=flops, result_bytes=result // 2, ceiling=True))
    return entries


def copy_ceiling(source: torch.Tensor) -> Contestant:
    """A device copy of `source`; bytes read and written both count."""
    target = torch.empty_like(source)
    return Contestant("copy", lambda: target.copy_(source), moved_bytes=2.0 * source.nbytes, ceiling=True)
