"""Data source for TensorFlow Datasets with images and optional classes."""

import tensorflow as tf

from keras_cnv2.images.pictures import READING

from ...errors import DataError
from ..tfds_rows import TfdsRows, check_image, features_of, open_builder, tensorflow_datasets
from .task import Pictures


class Tfds(TfdsRows, Pictures):
    """A data set of TensorFlow Datasets with a feature "image", and "label" for its classes.

    Uses its "train" split, and its validation split or else its test split; if it has neither, a share is held out. The
    data set is downloaded and prepared if necessary. Pictures stay encoded until they are cropped.

    Args:
        name: As in `tfds.builder`: "cifar10", "name/config:version".
        data_dir: Folder of prepared data sets; `None` for the default of TensorFlow Datasets.
        labelled: Bool, whether classes are needed.
        validation_share: Float from 0 to 1, the share to hold out; with 1, no training pictures remain.
        train_share: Float above 0 and up to 1, the share of the remaining pictures that is trained on.
        max_unreadable: Largest share of all pictures that may be unreadable.
        reading: `keras_cnv2.images.pictures.Reading`.
        shuffle_buffer: Number of encoded pictures in the shuffle buffer.

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
        max_unreadable=0.01,
        reading=READING,
        shuffle_buffer=10_000,
    ):
        tfds = tensorflow_datasets()

        builder = open_builder(name, data_dir)
        known = features_of(builder)
        check_image(known, name)
        if labelled and not isinstance(known.get("label"), tfds.features.ClassLabel):
            raise DataError(f"{name} has no feature label with classes. Received: a data set of {known}")
        wanted = {"image", "label"} if labelled else {"image"}
        decoders = {"image": tfds.decode.SkipDecoding()}
        sizes = self._keep(builder, name, wanted, decoders, validation_share, shuffle_buffer, train_share)
        super().__init__(*sizes, tuple(known["label"].names) if labelled else None, max_unreadable, reading)

    def _open(self, rows, key):
        row = self._row(rows, key)
        return row["image"], tf.cast(row.get("label", -1), tf.int32)
