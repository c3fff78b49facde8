"""The order of the questions as a function of the epoch, so that a resumed run draws those that would have come."""

from __future__ import annotations

from collections.abc import Iterator

from trl.trainer.utils import RepeatSampler

_STRIDE = 1_000_003  # between the seeds of two epochs; the first one's order is that of TRL's own sampler


class EpochSampler(RepeatSampler):
    """TRL's sampler, shuffled for every epoch from (seed, epoch).

    TRL's own draws one permutation after the other from a generator that starts over in a new process, so that a run
    resumed in its second epoch sees the first one's order again.

    Args:
        sampler: the sampler that TRL would use.
    """

    epoch = 0

    def __init__(self, sampler: RepeatSampler) -> None:
        names = ("data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed")
        super().__init__(**{name: getattr(sampler, name) for name in names})

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle and self.seed is not None:
            self.generator.manual_seed(self.seed + _STRIDE * self.epoch)
        return super().__iter__()
