"""A sampler's batches as paddle.io.DataLoader wants them."""

from collections.abc import Iterator

from metric_learning.checks import check_range
from metric_learning.data.samplers import Sampler


class BatchSampler:
    """`steps` batches an epoch of a sampler, for `paddle.io.DataLoader(dataset, batch_sampler=...)`.

    Each is a list of indices into the data set. Epoch e, which the e-th loop over the loader is (from 0 on, or from
    `epoch`), has the sampler's batches e steps .. (e + 1) steps - 1: always the same for one seed, so a training that
    goes on says where by `set_epoch`. UserError for steps below 1 and a negative epoch.
    """

    def __init__(self, sampler: Sampler, steps: int, epoch: int = 0) -> None:
        check_range("steps (batches an epoch)", steps, 1)
        self.sampler, self.steps = sampler, steps
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """The next loop is this epoch."""
        check_range("epoch", epoch, 0)
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.steps
        self.epoch += 1
        return (self.sampler.batch(step).tolist() for step in range(first, first + self.steps))

    def __len__(self) -> int:
        return self.steps
