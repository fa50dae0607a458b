"""The part of every batch that one worker loads.

No sample is loaded by two workers in an epoch, but for pictures that take the place of unreadable ones.
"""

from typing import NamedTuple


class Share(NamedTuple):
    """The part of a worker; by default all of it.

    Args:
        worker: Number of the worker, from 0 on.
        workers: Number of all workers. It divides every batch size.
    """

    worker: int = 0
    workers: int = 1

    def of(self, batch_size):
        """Where in a batch the part lies: a slice with start and stop."""
        size = batch_size // self.workers
        return slice(self.worker * size, (self.worker + 1) * size)


WHOLE = Share()
