"""The interface between data and training: what `training.loop.train` requires of a data source."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .shares import WHOLE, Share


class Source(Protocol):
    """Training and validation data of one task.

    Attributes:
        size: Number of training images.
        validation_size: Number of validation images; 0 if there are none.
        class_names: The names of the classes, or `None` for images without labels.
        channels: Number of channels of the images.
        taken: Statistics of the training images that were used to scale all images; empty if there are none.
    """

    size: int
    validation_size: int
    class_names: Sequence[str] | None
    channels: int
    taken: Mapping[str, Any]

    def look(self, memory: Path | None = None) -> None:
        """Checks the data before a run begins, if that is fast, and logs what cannot be read.

        Args:
            memory: Cache folder in which the result is kept for the next run.

        Raises:
            DataError: If too many pictures cannot be read.
        """

    def training(self, recipe: Any, first_batch: int = 0, augmentation: Any = None, share: Share = WHOLE) -> Any:
        """Returns endless batches of training data, starting with batch number `first_batch`.

        A batch depends only on the recipe's seed and the batch's number, so that a run can resume at any step.

        Args:
            recipe: The recipe, with batch size, image size and seed.
            first_batch: Number of the first batch.
            augmentation: Optional, a `training.data.images.augment.Augmentation`.
            share: The part of each batch that this worker gets.

        Returns:
            A `tf.data.Dataset` or a `keras.utils.PyDataset`.
        """

    def validation(self, recipe: Any, batch_size: int, share: Share = WHOLE) -> Any:
        """Returns every validation image once, in full batches whose padding has weight 0; `None` if there are none."""

    def examples(self, recipe: Any, count: int) -> Any:
        """Returns a fixed selection of `count` images, for figures."""

    def clear_errors(self) -> contextlib.AbstractContextManager[None]:
        """A context that replaces errors of the data pipeline by the `DataError` that caused them."""
