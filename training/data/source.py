"""The interface between data and training: what `training.loop.train` asks of a source of data."""

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
        taken: What was measured on the training images to scale all images; empty where nothing was.
    """

    size: int
    validation_size: int
    class_names: Sequence[str] | None
    channels: int
    taken: Mapping[str, Any]

    def look(self, memory: Path | None = None) -> None:
        """Checks the data before a run begins, where that is fast, and names what cannot be read.

        Args:
            memory: Folder in which the result is kept for the next run.

        Raises:
            DataError: If too much cannot be read.
        """

    def training(self, recipe: Any, first_batch: int = 0, augmentation: Any = None, share: Share = WHOLE) -> Any:
        """Endless batches of training data, from batch number `first_batch` on.

        A batch depends on the recipe's seed and the batch's number alone, so that a run can continue anywhere.

        Args:
            recipe: The recipe, with batch size, image size and seed.
            first_batch: Number of the first batch.
            augmentation: Optional, a `training.data.images.augment.Augmentation`.
            share: The part of each batch that this worker gets.

        Returns:
            A `tf.data.Dataset` or a `keras.utils.PyDataset`.
        """

    def validation(self, recipe: Any, batch_size: int, share: Share = WHOLE) -> Any:
        """Every validation image once, in whole batches, whose empty places have weight 0; `None` without any."""

    def examples(self, recipe: Any, count: int) -> Any:
        """`count` images that are always the same, to be drawn."""

    def clear_errors(self) -> contextlib.AbstractContextManager[None]:
        """A context that turns errors of the data pipeline into the `DataError` that caused them."""
