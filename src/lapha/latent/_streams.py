"""Order between the threads and CUDA streams that write a bank's buffers and those that read them.

On the CPU a copy is over when its call returns, and nothing is needed. On CUDA a row is complete only when the writing
stream has got that far, so every read waits, on its own stream, for the last write.
"""

from __future__ import annotations

import torch


class HostOrder:
    """The order of a CPU bank: program order is enough."""

    pinned = False

    def before_write(self) -> None: ...

    def after_write(self) -> None: ...

    def before_read(self, *tensors: torch.Tensor) -> None: ...

    def copy_to_host(self, target: torch.Tensor, source: torch.Tensor) -> None:
        target.copy_(source)

    def wait_for_copies(self) -> None: ...


class CudaOrder:
    """The order of a CUDA bank: one event for the last write, one side stream for copies to pinned memory.

    Calls to `before_write`, `after_write`, `copy_to_host` and `wait_for_copies` are made under the bank's lock.
    """

    pinned = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)
        self._written = torch.cuda.Event()

    def before_write(self) -> None:
        # Writers may run on different streams; waiting here makes the one event cover all earlier writes.
        torch.cuda.current_stream(self._device).wait_event(self._written)

    def after_write(self) -> None:
        self._written.record(torch.cuda.current_stream(self._device))

    def before_read(self, *tensors: torch.Tensor) -> None:
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._written)
        for tensor in tensors:
            if tensor.is_cuda:
                tensor.record_stream(stream)

    def copy_to_host(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self._copies.wait_event(self._written)
        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=True)
        source.record_stream(self._copies)

    def wait_for_copies(self) -> None:
        self._copies.synchronize()


def make_order(device: torch.device) -> HostOrder | CudaOrder:
    """The order that a bank on `device` needs."""
    return CudaOrder(device) if device.type == "cuda" else HostOrder()
