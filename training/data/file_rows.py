"""Pictures stored as files: the rows of a `Loader` (loader.py)."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from .headers import unreadable

Dataset = tf.data.Dataset


def checked_folder(path, content):
    """Returns the path of a data folder. Raises `FileNotFoundError` if there is none; `content` says what it holds."""
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"data must be a folder of {content}. Received: {path}")
    return path


class FileRows:
    """Rows that are numbers of picture files: training first, then validation.

    Args:
        training, validation: Lists of paths.
        open_file: Function from the path of a picture, a string tensor, and its number, an int64 tensor, to the
            elements of its row: the encoded picture, then its label of any kind.
        label_files: Optional string tensor, the path of a second file that each picture needs.
    """

    def __init__(self, training, validation, open_file, label_files=None):
        self.size, self.validation_size = len(training), len(validation)
        self.files = constant_paths([*training, *validation])
        self.label_files = constant_paths([]) if label_files is None else label_files
        self._open_file = open_file

    def unreadable(self, max_pixels, memory=None):
        """Reads the headers of all files. Returns a dict from the pictures that cannot be read to the reasons.

        Args:
            max_pixels, memory: See `training.data.headers.unreadable`.
        """
        pictures, labels = ([*map(os.fsdecode, files.numpy())] for files in (self.files, self.label_files))
        files = pictures + labels
        faults = {}
        for place, fault in unreadable(files, max_pixels, memory).items() if files else ():
            is_picture = place < len(pictures)
            faults[pictures[place % len(pictures)]] = fault if is_picture else f"its labels {files[place]}: {fault}"
        return faults

    def epochs(self, recipe, share):
        """Returns a function from an epoch, a scalar tensor, to a `Dataset` of a worker's batches of rows, in order."""
        part = share.of(recipe.step_batch)

        def rows_of(epoch):
            order = tf.random.experimental.stateless_shuffle(tf.range(self.size, dtype=tf.int64), (recipe.seed, epoch))
            return Dataset.from_tensor_slices(order).batch(recipe.step_batch).map(lambda rows: rows[part])

        return rows_of

    def validation(self, batch_size):
        """Returns a `Dataset` of batches with all validation rows once, for all workers."""
        return Dataset.range(self.size, self.size + self.validation_size).batch(batch_size)

    def mixed(self, batch_size):
        """Returns a `Dataset` of batches in a fixed random order: of the validation rows if there are any."""
        first, count = (self.size, self.validation_size) if self.validation_size else (0, self.size)
        order = first + np.random.default_rng(0).permutation(count)
        return Dataset.from_tensor_slices(order).batch(batch_size)

    def open(self, rows, key):
        """Returns the elements of one row. Keys beyond the rows give substitutes for unreadable pictures."""
        number = self._numbers(rows, key)
        return self._open_file(self.files[number], number)

    def names(self, rows, keys):
        """Returns the paths of these pictures: a string tensor."""
        return tf.gather(self.files, self._numbers(rows, keys))

    def _numbers(self, rows, keys):
        """Returns the file numbers at these keys; keys beyond the rows get the training pictures that follow."""
        length = tf.size(rows, tf.int64)
        following = (rows[0] + 1 + keys - length) % max(self.size, 1)
        return tf.where(keys < length, tf.gather(rows, tf.minimum(keys, length - 1)), following)


def constant_paths(paths):
    """Returns paths as a string tensor in the memory of the CPU."""
    with tf.device("cpu"):
        return tf.constant([os.fsencode(path) for path in paths], tf.string)
