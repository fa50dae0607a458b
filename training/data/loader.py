"""Loads pictures into batches with tf.data, for any kind of label and any storage.

A training batch depends only on its number and the seed, so a run can resume at any step as if it had never stopped.
"""

import os

import numpy as np
import tensorflow as tf

from keras_cnv2.images.header import has_16_bits, picture_size, pixel_limit

from ..errors import DataError
from .draws import Draws
from .faults import after_call

Dataset = tf.data.Dataset

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# Batch size for examples; limited because several copies of a batch are in memory at a time.
EXAMPLES_BATCH = 64

# No function here branches on a tensor in Python, and translating all their code takes seconds.
as_written = tf.autograph.experimental.do_not_convert

# Options of the per-batch pipeline: it is rebuilt for each batch, so optimising it costs more than it saves.
_AS_WRITTEN = tf.data.Options()
_AS_WRITTEN.autotune.enabled = False
_AS_WRITTEN.experimental_optimization.apply_default_optimizations = False


class Loader:
    """Loads batches of pictures in parallel, in a new random order for each pass over the data.

    The rows tell where pictures and labels are stored; functions that are given to the methods tell how a row becomes
    an example. A picture that cannot be read is logged and left out; in training, another one takes its place.

    Args:
        rows: `training.data.file_rows.FileRows` or `training.data.tfds_rows.TfdsRows`.
        reading: `keras_cnv2.images.pictures.Reading`, how pictures are read.
        faults: `training.data.faults.Faults`, which counts the pictures that cannot be read.
    """

    def __init__(self, rows, reading, faults):
        self._rows = rows
        self._reading = reading
        self._faults = faults

    @as_written
    def training(self, recipe, first_batch, share, load, change=None, finish=None):
        """Returns endless training batches, in a new order for each pass over the pictures.

        The augmentation of a picture depends on its position in the batch, not on the worker that loads it.

        Args:
            recipe: The `training.recipes.common.Training`.
            first_batch: Number of the first batch. Earlier batches are not decoded.
            share: `training.data.shares.Share`, the part of each batch that is loaded.
            load: Function of the elements of a row as the rows' `open` returns them (one argument each), `Draws` and
                the epoch; returns a tuple of tensors of static shapes. It raises an error if the picture cannot be
                read.
            change: Optional function from these tensors and `Draws` to tensors like them. It must not fail for any
                picture.
            finish: Optional function from the batched tensors and `Draws` to the batch. These draws differ between
                workers.

        Returns:
            A `Dataset` of tuples of tensors, or of the results of `finish`. The length of each tensor is the share's
            part of `recipe.step_batch`.
        """
        part = share.of(recipe.step_batch)
        count = part.stop - part.start

        def load_batch(number, rows):
            def load_one(key):
                return load(*self._opened(rows, key), Draws(recipe.seed, number, part.start + key), number // steps)

            def change_one(key, *columns):
                return key, *change(*columns, Draws(recipe.seed, number, part.start + key, 0))

            columns = self._load(rows, load_one, count, change and change_one)
            return finish(*columns, Draws(recipe.seed, number, share.worker, 1)) if finish else columns

        steps = recipe.steps_per_pass(self._rows.size)
        rows_of = self._rows.epochs(recipe, share)

        def of_epoch(epoch):
            batches = rows_of(epoch).take(steps).enumerate(epoch * steps)
            return batches.skip(tf.maximum(first_batch - epoch * steps, 0))

        batches = Dataset.range(first_batch // steps, np.iinfo("int64").max).flat_map(of_epoch)
        # Two batches at a time, so that no core is idle while the last pictures of a batch are loaded.
        return batches.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(1)

    @as_written
    def validation(self, batch_size, share, load, finish=None, mixed=False):
        """Returns batches with every validation picture once.

        Args:
            batch_size: Int. All batches have this size, to keep shapes static; padding has weight 0.
            share: `training.data.shares.Share`, the part of each batch that is loaded.
            load: Function of the elements of a row (one argument each); returns a tuple of tensors of static shapes.
            finish: Optional function from the batched tensors to others.
            mixed: Bool, whether pictures come in a fixed random order where files are sorted.

        Returns:
            A `Dataset` of tuples: these tensors, and float32 weights `(N,)`, where N is the share's part of
            `batch_size`.
        """
        part = share.of(batch_size)

        def load_batch(rows):
            columns = self._load_each(tf.nest.map_structure(lambda column: column[part], rows), load)
            weights = tf.ones(tf.shape(tf.nest.flatten(columns)[0])[:1], tf.float32)
            columns = (*(finish(*columns) if finish else columns), weights)
            return tf.nest.map_structure(lambda column: _filled(column, part.stop - part.start), columns)

        rows = (self._rows.mixed if mixed else self._rows.validation)(batch_size)
        return rows.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(1)

    @as_written
    def one_by_one(self, share, load, mixed=False):
        """Returns a `Dataset` of every validation picture once, without padding.

        Args:
            share: `training.data.shares.Share`: worker i of n gets pictures i, i + n, i + 2n, ...
            load, mixed: As in `validation`.
        """
        rows = (self._rows.mixed if mixed else self._rows.validation)(1).shard(share.workers, share.worker)
        batches = rows.map(lambda rows: self._load_each(rows, load), num_parallel_calls=CORES, deterministic=True)
        return batches.unbatch()

    @as_written
    def examples(self, count, load):
        """Returns a fixed selection of pictures, from validation if there is any.

        Args:
            count: Int.
            load: As in `validation`.

        Returns:
            A tuple of arrays `(count, ...)`, or fewer if there are not so many readable pictures. Memory never holds
            two copies of them.

        Raises:
            DataError: If there is no readable picture.
        """
        batches = self._rows.mixed(min(count, EXAMPLES_BATCH)).map(lambda rows: self._load_each(rows, load))
        count = min(count, self._rows.validation_size or self._rows.size)
        columns = [np.empty((count, *spec.shape[1:]), spec.dtype.as_numpy_dtype) for spec in batches.element_spec]
        found = 0
        with self._faults.clear_errors():
            for batch in batches.as_numpy_iterator():
                taken = min(len(batch[0]), count - found)
                for column, values in zip(columns, batch):
                    column[found : found + taken] = values[:taken]
                found += taken
                if found == count:
                    break
        if not found:
            raise DataError("There must be pictures that can be read. Received: none")
        return tuple(column[:found] for column in columns)

    def _opened(self, rows, key):
        """Returns the elements of one row, and logs 16-bit pictures of which only few grey levels remain."""
        contents, *label = self._rows.open(rows, key)

        def is_small_enough():
            height, width = picture_size(contents)
            return height * width <= pixel_limit(self._reading.max_pixels)

        contents = after_call(
            contents,
            tf.cond(has_16_bits(contents), is_small_enough, lambda: tf.constant(False)),
            self._faults.say_small_range,
            lambda: [contents, self._rows.names(rows, key[None])[0]],
        )
        return contents, *label

    def _load_each(self, rows, load):
        """Loads those pictures of a batch that can be read."""
        return self._load(rows, lambda key: load(*self._opened(rows, key)))

    def _load(self, rows, load, count=None, change=None):
        """Loads a batch in parallel, without the pictures that cannot be read.

        Args:
            rows: The batch's rows, possibly none.
            load: Function from the number of a row to a tuple of tensors. It raises an error if the picture cannot be
                read.
            count: Number of pictures that the batch must have; others take the place of those that cannot be read.
                `None`: as many as can be read.
            change: Optional function from number and tensors to number and tensors. It must not fail for any picture.

        Returns:
            The tuple of tensors, batched in order.
        """
        length = tf.shape(tf.nest.flatten(rows)[0], out_type=tf.int64)[0]
        tries = length if count is None else length + self._faults.allowed + 1

        @tf.function(autograph=False)  # traced once for both datasets
        def load_one(key):
            return (key, *load(key))

        keys = Dataset.range(tries)
        loaded = keys.take(length).map(load_one, num_parallel_calls=CORES, deterministic=True)
        if count is not None:
            loaded = loaded.concatenate(keys.skip(length).map(load_one))
        loaded = loaded.ignore_errors().take(length)
        if change:
            loaded = loaded.map(change, num_parallel_calls=CORES, deterministic=True)
        batch = loaded.batch(tf.maximum(length, 1))
        nothing = tf.nest.map_structure(lambda spec: tf.zeros((0, *spec.shape[1:]), spec.dtype), batch.element_spec)
        batch = batch.concatenate(Dataset.from_tensors(nothing)).take(1).with_options(_AS_WRITTEN)
        keys, *columns = batch.get_single_element()

        found = tf.size(keys, tf.int64)
        tried = tf.range(tf.where(found == length, tf.reduce_max(tf.pad(keys + 1, [(0, 1)])), tries))
        columns = after_call(
            tuple(columns),
            found < tf.size(tried, tf.int64),
            self._faults.report,
            lambda: [self._rows.names(rows, tried), keys, count or 0],
        )
        return tf.nest.map_structure(lambda x: tf.ensure_shape(x, (count, *x.shape[1:])), columns)


def _filled(column, count):
    """Pads a column with zeros at its end to the length `count`."""
    missing = [(0, count - tf.shape(column)[0]), *[(0, 0)] * (column.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(column, missing), (count, *column.shape[1:]))
