"""Pictures stored as files: supplies the rows of a `Loader` (loader.py)."""

import os

import numpy as np
import tensorflow as tf

from .headers import unreadable

Dataset = tf.data.Dataset


class FileRows:
    """A mixin for a `Loader` whose pictures are files. Rows are file numbers: training first, then validation.

    A subclass opens the picture number `self._index(rows, key)` in its `_open`.
    """

    def _keep(self, training, validation):
        """Stores the paths of all training and all validation pictures."""
        with tf.device("cpu"):
            self._files = tf.constant([os.fsencode(file) for file in (*training, *validation)], tf.string)

    def look(self, memory=None):
        """Reads the headers of all files and logs the pictures that cannot be read.

        Args:
            memory: See `training.data.headers.unreadable`.

        Raises:
            DataError: If too many pictures cannot be read.
        """
        pictures = [os.fsdecode(file) for file in self._files.numpy()]
        files = pictures + [os.fsdecode(file) for file in self._beside()]
        faults = {}
        for place, fault in unreadable(files, self.reading.max_pixels, memory).items() if files else ():
            is_picture = place < len(pictures)
            faults[pictures[place % len(pictures)]] = fault if is_picture else f"its labels {files[place]}: {fault}"
        self._leave_out(faults)

    def _beside(self):
        """Returns a second file that each picture needs, e.g. its labels; by default an empty list."""
        return []

    def _epochs(self, recipe, share):
        part = share.of(recipe.step_batch)

        def rows_of(epoch):
            order = tf.random.experimental.stateless_shuffle(tf.range(self.size, dtype=tf.int64), (recipe.seed, epoch))
            return Dataset.from_tensor_slices(order).batch(recipe.step_batch).map(lambda rows: rows[part])

        return rows_of

    def _validation_rows(self, batch_size):
        return Dataset.range(self.size, self.size + self.validation_size).batch(batch_size)

    def _example_rows(self, batch_size):
        first, count = (self.size, self.validation_size) if self.validation_size else (0, self.size)
        order = first + np.random.default_rng(0).permutation(count)
        return Dataset.from_tensor_slices(order).batch(batch_size)

    def _index(self, rows, keys):
        """Returns the file numbers at these keys; keys beyond the rows get the training pictures that follow."""
        length = tf.size(rows, tf.int64)
        following = (rows[0] + 1 + keys - length) % max(self.size, 1)
        return tf.where(keys < length, tf.gather(rows, tf.minimum(keys, length - 1)), following)

    def _names(self, rows, keys):
        return tf.gather(self._files, self._index(rows, keys))
