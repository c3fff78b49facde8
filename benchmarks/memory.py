"""Peak memory of a piece of code: the allocator's on CUDA, the process's resident set elsewhere."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """``with PeakMemory(device) as peak: …`` then ``peak.bytes``: most memory held at once beyond what was held before.

    None where the system cannot say (no /proc).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before: int | None = torch.cuda.memory_allocated(self.device)
        else:
            self._before = _resident("VmRSS") if forget_peak() else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is None:
            return
        if self.device.type == "cuda":
            peak: int | None = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = _resident("VmHWM")
        self.bytes = None if peak is None else max(0, peak - self._before)


def forget_peak() -> bool:
    """Make the kernel forget the peak so far; whether it could."""
    # what the C library keeps of freed memory would be used again, and not show
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _resident(key: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), None)


def resident() -> int | None:
    """Bytes of this process in memory now, or None where the system cannot say."""
    return _resident("VmRSS")


def peak_resident() -> int | None:
    """The most bytes of this process that were in memory at once, or None where the system cannot say."""
    return _resident("VmHWM")
