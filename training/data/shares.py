"""The part of every batch that one worker loads.

No two workers load the same picture in an epoch, except for pictures that replace unreadable ones.
"""

from typing import NamedTuple


class Share(NamedTuple):
    """A worker's part of each batch; by default the whole batch.

    Args:
        worker: Index of the worker, from 0.
        workers: Number of workers. It divides every batch size.
    """

    worker: int = 0
    workers: int = 1

    def of(self, batch_size):
        """Returns the slice of a batch that is this part."""
        size = batch_size // self.workers
        return slice(self.worker * size, (self.worker + 1) * size)


WHOLE = Share()
