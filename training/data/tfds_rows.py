"""Pictures stored in TensorFlow Datasets: the rows of a `Loader` (loader.py)."""

import functools

import numpy as np
import tensorflow as tf

from ..errors import DataError
from .splits import VALIDATION_NAMES, check_share


class TfdsRows:
    """Rows of a data set of TensorFlow Datasets.

    Uses its "train" split, and its validation split or else its test split; if it has neither, a share of the training
    pictures is held out. The data set is downloaded and prepared if necessary.

    Args:
        builder: As `open_pictures` returns it.
        name: The data set's name, for messages.
        wanted: Set of the features that are read, or a nested dict as for `tfds.decode.PartialDecoding`. Images stay
            encoded.
        open_row: Function from one row, a dict of tensors, to its elements: the encoded picture, then its label of any
            kind.
        validation_share: Float from 0 to 1.
        shuffle_buffer: Number of rows in the shuffle buffer.
        train_share: Float above 0 and up to 1, the share of the remaining pictures that is trained on.
        batch: Function that batches rows, given a `Dataset` of them and the batch size.

    Raises:
        DataError: If the data set cannot be prepared or has no split for training.
    """

    def __init__(
        self,
        builder,
        name,
        wanted,
        open_row,
        validation_share,
        shuffle_buffer,
        train_share=1.0,
        batch=tf.data.Dataset.batch,
    ):
        tfds = tensorflow_datasets()

        check_share(validation_share)
        _prepare(builder, name)
        splits = builder.info.splits
        if "train" not in splits:
            raise DataError(f"{name} has no split train. Received: a data set of {sorted(splits)}")
        validation = next((split for split in VALIDATION_NAMES if split in splits), None)
        count = splits["train"].num_examples
        held_out = 0 if validation else round(validation_share * count)
        rest = count - held_out
        end = held_out + min(max(round(train_share * rest), 1), rest)
        self.size = end - held_out
        self.validation_size = splits[validation].num_examples if validation else held_out
        self._training_split = f"train[{held_out}:{end}]"
        self._validation_split = validation or f"train[:{held_out}]"
        self._open_row = open_row
        self._shuffle_buffer = shuffle_buffer
        self._batch = batch
        decoders = _without_images(builder.info.features, wanted)
        self._read = functools.partial(
            builder.as_dataset,
            decoders=tfds.decode.PartialDecoding(wanted, decoders),
            read_config=tfds.ReadConfig(try_autocache=False, add_tfds_id=True),
            shuffle_files=False,
        )

    def unreadable(self, max_pixels, memory=None):
        """Returns an empty dict: nothing can be checked before pictures are read."""
        return {}

    def everything(self):
        """Returns a `Dataset` of all rows, training first, then validation."""
        return self._read(split=self._training_split).concatenate(self._read(split=self._validation_split))

    def epochs(self, recipe, share):
        """Returns a function from an epoch, a scalar tensor, to a `Dataset` of a worker's batches of rows, in order."""
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
            return self._batch(shuffled, recipe.step_batch // share.workers)

        return rows_of

    def validation(self, batch_size):
        """Returns a `Dataset` of batches with all validation rows once, for all workers."""
        return self._batch(self._read(split=self._validation_split), batch_size)

    def mixed(self, batch_size):
        """Returns a `Dataset` of batches in stored order, which is mixed: of the validation rows if there are any."""
        split = self._validation_split if self.validation_size else self._training_split
        return self._batch(self._read(split=split), batch_size)

    def open(self, rows, key):
        """Returns the elements of one row. Keys beyond the rows, for substitutes, start again from the first row."""
        row = tf.nest.map_structure(lambda column: column[key % tf.shape(column, tf.int64)[0]], rows)
        return self._open_row(row)

    def names(self, rows, keys):
        """Returns readable names of these pictures: a string tensor."""
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


def open_pictures(name, data_dir=None):
    """Opens a data set of TensorFlow Datasets with a feature "image", without downloading it.

    Args:
        name: As in `tfds.builder`: "cifar10", "name/config:version".
        data_dir: Folder of prepared data sets; `None` for the default of TensorFlow Datasets.

    Returns:
        The builder, and a dict from names to features.

    Raises:
        DataError: If there is no such data set, or it has no pictures.
    """
    tfds = tensorflow_datasets()

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TensorFlow Datasets raises many kinds
        raise DataError(f"TensorFlow Datasets has no {name}: {_short(error)}. Received: tfds:{name}") from error
    features = builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image = features.get("image")
    if not isinstance(image, tfds.features.Image) or image.np_dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name} has no feature image with pictures. Received: a data set of {features}")
    return builder, features


def _without_images(features, wanted):
    """Returns decoders that leave images encoded, also those of sequences: a nested dict."""
    tfds = tensorflow_datasets()

    decoders = {}
    for name in wanted:
        if isinstance(features[name], tfds.features.Image):
            decoders[name] = tfds.decode.SkipDecoding()
        elif isinstance(wanted, dict) and isinstance(wanted[name], dict):
            decoders[name] = _without_images(features[name].feature, wanted[name])
    return {name: decoder for name, decoder in decoders.items() if decoder}


def _prepare(builder, name):
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise DataError(
            f"{name} is not in {builder.data_path} and cannot be prepared: {_short(error)}. Received: tfds:{name}"
        ) from error


def _short(error):
    return " ".join(str(error).split())[:500].rstrip(".") or type(error).__name__
