"""Data source for TensorFlow Datasets with images and optional classes."""

import tensorflow as tf

from ...errors import DataError
from ..tfds_rows import TfdsRows, open_pictures, tensorflow_datasets
from .task import Pictures


class Tfds(Pictures):
    """A data set of TensorFlow Datasets with a feature "image", and "label" for its classes.

    For its splits see `training.data.tfds_rows.TfdsRows`.

    Args:
        name, data_dir: See `training.data.tfds_rows.open_pictures`.
        labelled: Bool, whether classes are needed.
        validation_share: Float from 0 to 1, the share to hold out; with 1, no training pictures remain.
        train_share: Float above 0 and up to 1, the share of the remaining pictures that is trained on.
        shuffle_buffer: Number of encoded pictures in the shuffle buffer.
        **options: `max_unreadable` and `reading` of `training.data.pictures.PictureSource`.

    Raises:
        DataError: If there is no such data set, it cannot be prepared, or it lacks a feature or split.
    """

    def __init__(
        self,
        name,
        data_dir=None,
        labelled=True,
        validation_share=0.1,
        train_share=1.0,
        shuffle_buffer=10_000,
        **options,
    ):
        tfds = tensorflow_datasets()

        builder, known = open_pictures(name, data_dir)
        if labelled and not isinstance(known.get("label"), tfds.features.ClassLabel):
            raise DataError(f"{name} has no feature label with classes. Received: a data set of {known}")
        wanted = {"image", "label"} if labelled else {"image"}

        def open_row(row):
            return row["image"], tf.cast(row.get("label", -1), tf.int32)

        rows = TfdsRows(builder, name, wanted, open_row, validation_share, shuffle_buffer, train_share)
        super().__init__(rows, tuple(known["label"].names) if labelled else None, **options)
