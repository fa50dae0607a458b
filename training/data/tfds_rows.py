"""Pictures stored in TensorFlow Datasets: supplies the rows of a `Loader` (loader.py)."""

import functools

import numpy as np
import tensorflow as tf

from ..errors import DataError
from .loader import VALIDATION_NAMES


class TfdsRows:
    """A mixin for a `Loader` whose pictures are rows of a data set of TensorFlow Datasets.

    Uses its "train" split, and its validation split or else its test split. The data set is downloaded and prepared
    if necessary. Pictures stay encoded until `_open`.
    """

    def _keep(self, builder, name, wanted, decoders, validation_share, shuffle_buffer, train_share=1.0):
        """Prepares a data set; holds out a share of the training pictures if it has no validation split.

        Args:
            builder: The result of `open_builder`.
            name: The data set's name, for messages.
            wanted: Set of the features that are read, or a nested dict as for `tfds.decode.PartialDecoding`.
            decoders: Dict from features to `tfds.decode.Decoder`.
            validation_share: Float from 0 to 1.
            shuffle_buffer: Number of rows in the shuffle buffer.
            train_share: Float above 0 and up to 1, the share of the remaining pictures that is trained on.

        Returns:
            The numbers of training and of validation pictures.

        Raises:
            DataError: If the data set cannot be prepared or has no split for training.
        """
        tfds = tensorflow_datasets()

        if not 0 <= validation_share <= 1:
            raise DataError(f"validation_share must be from 0 to 1. Received: {validation_share}")
        _prepare(builder, name)
        splits = builder.info.splits
        if "train" not in splits:
            raise DataError(f"{name} has no split train. Received: a data set of {sorted(splits)}")
        validation = next((split for split in VALIDATION_NAMES if split in splits), None)
        images = splits["train"].num_examples
        held_out = 0 if validation else round(validation_share * images)
        rest = images - held_out
        end = held_out + min(max(round(train_share * rest), 1), rest)
        self._training_split = f"train[{held_out}:{end}]"
        self._validation_split = validation or f"train[:{held_out}]"
        self._shuffle_buffer = shuffle_buffer
        self._read = functools.partial(
            builder.as_dataset,
            decoders=tfds.decode.PartialDecoding(wanted, decoders),
            read_config=tfds.ReadConfig(try_autocache=False, add_tfds_id=True),
            shuffle_files=False,
        )
        return end - held_out, splits[validation].num_examples if validation else held_out

    def _epochs(self, recipe, share):
        tfds = tensorflow_datasets()

        # Each worker reads its own part of the data, the same in all epochs: if each read all of it, more workers would
        # not be faster.
        rows = self._read(split=tfds.even_splits(self._training_split, share.workers)[share.worker])
        flat = tf.nest.flatten(rows.element_spec)

        def rows_of(epoch):
            # Unlike `Dataset.shuffle`, the raw operation takes a tensor as seed. Two zeros would mean a random seed.
            shuffled = tf.raw_ops.ShuffleDataset(
                input_dataset=tf.data.experimental.to_variant(rows),
                buffer_size=self._shuffle_buffer,
                seed=recipe.seed + 1,
                seed2=epoch,
                output_types=[spec.dtype for spec in flat],
                output_shapes=[spec.shape for spec in flat],
                reshuffle_each_iteration=False,
            )
            shuffled = tf.data.experimental.from_variant(shuffled, rows.element_spec)
            return self._batched(shuffled, recipe.step_batch // share.workers)

        return rows_of

    def _validation_rows(self, batch_size):
        return self._batched(self._read(split=self._validation_split), batch_size)

    def _example_rows(self, batch_size):
        split = self._validation_split if self.validation_size else self._training_split
        return self._batched(self._read(split=split), batch_size)

    def _batched(self, rows, batch_size):
        """Batches rows; a subclass whose rows differ in length overrides this to pad them."""
        return rows.batch(batch_size)

    def _row(self, rows, key):
        """Returns one row; keys beyond the rows start again from the first row."""
        return tf.nest.map_structure(lambda column: column[key % tf.shape(column, tf.int64)[0]], rows)

    def _names(self, rows, keys):
        names = rows["tfds_id"]
        return tf.gather(names, keys % tf.size(names, tf.int64))


def tensorflow_datasets():
    """Imports and returns the package, on first use. Raises a `DataError` if it is not installed."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f'tfds:NAME needs TensorFlow Datasets: pip install "keras_cnv2[train]". Received: {error}'
        ) from error
    return tfds


def open_builder(name, data_dir=None):
    """Returns the builder of a data set of TensorFlow Datasets. Raises a `DataError` if there is no such data set."""
    tfds = tensorflow_datasets()

    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TensorFlow Datasets raises many kinds
        raise DataError(f"TensorFlow Datasets has no {name}: {_short(error)}. Received: tfds:{name}") from error


def features_of(builder):
    """Returns the features of a data set: a dict from names to features."""
    tfds = tensorflow_datasets()

    features = builder.info.features
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}


def check_image(features, name):
    """Raises a `DataError` if a data set has no feature "image" with pictures."""
    tfds = tensorflow_datasets()

    image = features.get("image")
    if not isinstance(image, tfds.features.Image) or image.np_dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name} has no feature image with pictures. Received: a data set of {features}")


def _prepare(builder, name):
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise DataError(
            f"{name} is not in {builder.data_path} and cannot be prepared: {_short(error)}. Received: tfds:{name}"
        ) from error


def _short(error):
    return " ".join(str(error).split())[:500].rstrip(".") or type(error).__name__
