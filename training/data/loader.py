"""Loads pictures into batches with tf.data, for any kind of label and any storage.

A training batch depends only on its number and the seed, so a run can resume at any step as if it had never stopped.
"""

import contextlib
import logging
import os
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_cnv2.images.grey_levels import small_range
from keras_cnv2.images.header import has_16_bits, picture_size, pixel_limit
from keras_cnv2.images.pictures import READING

from ..errors import DataError
from .draws import Draws
from .errors import quote

Dataset = tf.data.Dataset
logger = logging.getLogger(__name__)

# Names of validation folders and of validation splits in TensorFlow Datasets; the first one found is used.
VALIDATION_NAMES = ("val", "validation", "valid", "test")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# Batch size for examples; limited because several copies of a batch are in memory at a time.
EXAMPLES_BATCH = 64

# This many unreadable pictures are always tolerated, however small the data set is.
TOLERATED = 10

# How many 16-bit pictures that keep only few grey levels are named in the log.
NAMED = 10

# Options of the per-batch pipeline: it is rebuilt for each batch, so optimising it costs more than it saves.
_AS_WRITTEN = tf.data.Options()
_AS_WRITTEN.autotune.enabled = False
_AS_WRITTEN.experimental_optimization.apply_default_optimizations = False


class Loader:
    """Loads batches of pictures in parallel, in a new random order for each pass over the data.

    Base class of all `training.data.source.Source`s that read pictures.

    Subclasses add two things: the storage (`FileRows`, `TfdsRows`), and how a row becomes a training example
    (`Pictures`, `Scenes`, `Boxes`), by means of `_training_batches` and `_validation_batches`.

    A picture that cannot be read is logged and left out; in training, another one takes its place.

    Args:
        size: Number of training images.
        validation_size: Number of validation images.
        class_names: Tuple of strings, or `None` for pictures without labels.
        max_unreadable: Largest share of all pictures that may be unreadable; ten are always allowed.
        reading: `keras_cnv2.images.pictures.Reading`, how pictures are read.

    Attributes:
        failure: The `DataError` that ended a pipeline, or `None`.
    """

    channels = 3
    taken = {}

    def __init__(self, size, validation_size, class_names, max_unreadable, reading=READING):
        if keras.backend.backend() != "tensorflow":
            raise DataError(
                "Folders and TensorFlow Datasets need Keras's TensorFlow backend; on others, train on arrays in an "
                f".npz file. Received: the backend {keras.backend.backend()}"
            )
        self.size = size
        self.validation_size = validation_size
        self.class_names = class_names
        self.max_unreadable = max_unreadable
        self.reading = reading
        self.failure = None
        self._unreadable = {}  # name -> reason, or "" if it is unknown
        self._has_unturned = False
        self._of_16_bits, self._small_ranges = set(), 0
        self._lock = threading.Lock()

    def look(self, memory=None):
        """Does nothing: by default nothing can be checked before pictures are read. `FileRows` checks files."""

    # Storage, supplied by a subclass. `rows` are tensors that identify the pictures of a batch.

    def _epochs(self, recipe, share):
        """Returns a function from an epoch, a scalar tensor, to a `Dataset` of a worker's batches of rows, in order."""
        raise NotImplementedError

    def _validation_rows(self, batch_size):
        """Returns a `Dataset` of batches with all validation rows once, for all workers."""
        raise NotImplementedError

    def _example_rows(self, batch_size):
        """Returns a `Dataset` of batches of rows in a fixed order, from validation if there is any."""
        raise NotImplementedError

    def _open(self, rows, key):
        """Returns the contents of one row as a tuple: the encoded picture, then its label of any kind.

        Keys beyond the rows give substitutes for unreadable pictures.
        """
        raise NotImplementedError

    def _names(self, rows, keys):
        """Returns readable names of these pictures: a string tensor."""
        raise NotImplementedError

    def _opened(self, rows, key):
        """Returns the result of `_open`, and logs 16-bit pictures of which only few grey levels remain."""
        contents, *label = self._open(rows, key)

        def look():
            height, width = picture_size(contents)
            name = self._names(rows, key[None])[0]
            return tf.cond(
                height * width <= pixel_limit(self.reading.max_pixels),
                lambda: tf.numpy_function(self._say_small_range, [contents, name], tf.bool),
                lambda: tf.constant(False),
            )

        said = tf.cond(has_16_bits(contents), look, lambda: tf.constant(False))
        with tf.control_dependencies([said]):
            return tf.identity(contents), *label

    def _training_batches(self, recipe, first_batch, share, load, change=None, finish=None):
        """Returns endless training batches, in a new order for each pass over the pictures.

        The augmentation of a picture depends on its position in the batch, not on the worker that loads it.

        Args:
            recipe: The `training.recipes.fields.Training`.
            first_batch: Number of the first batch. Earlier batches are not decoded.
            share: `training.data.shares.Share`, the part of each batch that is loaded.
            load: Function of the elements that `_open` returns (one argument each), `Draws` and the epoch; returns a
                tuple of tensors of static shapes. It raises an error if the picture cannot be read.
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

        steps = recipe.steps_per_pass(self.size)
        rows_of = self._epochs(recipe, share)

        def of_epoch(epoch):
            batches = rows_of(epoch).take(steps).enumerate(epoch * steps)
            return batches.skip(tf.maximum(first_batch - epoch * steps, 0))

        batches = Dataset.range(first_batch // steps, np.iinfo("int64").max).flat_map(of_epoch)
        # Two batches at a time, so that no core is idle while the last pictures of a batch are loaded.
        return batches.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(1)

    def _validation_batches(self, batch_size, share, load, finish=None, mixed=False):
        """Returns batches with every validation picture once.

        Args:
            batch_size: Int. All batches have this size, to keep shapes static; padding has weight 0.
            share: `training.data.shares.Share`, the part of each batch that is loaded.
            load: Function of the elements that `_open` returns (one argument each); returns a tuple of tensors of
                static shapes.
            finish: Optional function from the batched tensors to others.
            mixed: Bool, whether pictures come in the order of `_example_rows`.

        Returns:
            A `Dataset` of tuples: these tensors, and float32 weights `(N,)`, where N is the share's part of
            `batch_size`.
        """
        part = share.of(batch_size)

        def load_batch(rows):
            rows = tf.nest.map_structure(lambda column: column[part], rows)
            columns = self._load(rows, lambda key: load(*self._opened(rows, key)))
            weights = tf.ones(tf.shape(tf.nest.flatten(columns)[0])[:1], tf.float32)
            columns = (*(finish(*columns) if finish else columns), weights)
            return tf.nest.map_structure(lambda column: _filled(column, part.stop - part.start), columns)

        rows = (self._example_rows if mixed else self._validation_rows)(batch_size)
        return rows.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(1)

    def _examples(self, count, load):
        """Returns a fixed selection of pictures, from validation if there is any.

        Args:
            count: Int.
            load: As in `_validation_batches`.

        Returns:
            A list of `count` tuples of arrays, or fewer if there are not so many readable pictures.

        Raises:
            DataError: If there is no readable picture.
        """
        return [*zip(*self._example_columns(count, load))]

    def _example_columns(self, count, load):
        """Like `_examples`, but returns a tuple of arrays `(count, ...)`, of which memory never holds two copies."""
        rows = self._example_rows(min(count, EXAMPLES_BATCH))
        batches = rows.map(lambda rows: self._load(rows, lambda key: load(*self._opened(rows, key))))
        count = min(count, self.validation_size or self.size)
        columns = [np.empty((count, *spec.shape[1:]), spec.dtype.as_numpy_dtype) for spec in batches.element_spec]
        found = 0
        with self.clear_errors():
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

    @contextlib.contextmanager
    def clear_errors(self):
        """A context that replaces TensorFlow's error about a failed pipeline by the `DataError` that caused it."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.failure is None:
                raise
            raise self.failure from error

    def _say_unturned(self, name):
        """Logs once that labels ignore the EXIF orientation of their picture. Returns true."""
        with self._lock:
            if not self._has_unturned:
                self._has_unturned = True
                logger.warning(
                    "labels have the size of their picture as it is stored, before its EXIF orientation is applied: "
                    "such pictures are not turned, the first is %s",
                    os.fsdecode(name),
                )
        return np.bool_(True)

    def _say_small_range(self, contents, name):
        """Logs the message of `small_range` for a picture, once, and only for the first `NAMED`. Returns true."""
        with self._lock:
            is_known = name in self._of_16_bits or self._small_ranges >= NAMED
            self._of_16_bits.add(name)
        if not is_known and (fault := small_range(contents)):
            with self._lock:
                self._small_ranges += 1
            logger.warning("%s %s", os.fsdecode(name), fault)
            if self._small_ranges == NAMED:
                logger.warning("this is not reported for further pictures of 16 bits")
        return np.bool_(True)

    @property
    def _allowed(self):
        # Rounded because in floats, 0.29 * 100 is a little less than 29.
        return max(TOLERATED, int(round(self.max_unreadable * (self.size + self.validation_size), 6)))

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
        tries = length if count is None else length + self._allowed + 1

        @tf.function  # traced once for both datasets
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
        reported = tf.cond(
            found < tf.size(tried, tf.int64),
            lambda: tf.numpy_function(self._report, [self._names(rows, tried), keys, count or 0], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        with tf.control_dependencies([reported]):
            return tf.nest.map_structure(lambda x: tf.ensure_shape(x, (count, *x.shape[1:])), tuple(columns))

    def _report(self, tried, readable, count):
        """Logs the pictures that turned out to be unreadable. Returns how many there are so far.

        Args:
            tried: Names of all pictures that were tried, bytes.
            readable: Indices of those that were read.
            count: Number of pictures that had to be read.

        Raises:
            DataError: If too many pictures are unreadable so far.
        """
        with self._lock:
            for name in map(os.fsdecode, np.delete(tried, readable)):
                if name not in self._unreadable:
                    self._unreadable[name] = ""
                    logger.warning("Left out, as it cannot be read: %s", name)
            if len(self._unreadable) > self._allowed or len(readable) < count:
                self._fail_unreadable()
            return np.int64(len(self._unreadable))

    def _leave_out(self, faults):
        """Logs pictures that are known to be unreadable before loading begins.

        Args:
            faults: Dict from names to reasons.

        Raises:
            DataError: If there are too many of them.
        """
        self._unreadable |= faults
        if len(self._unreadable) > self._allowed:
            self._fail_unreadable()
        for name, fault in faults.items():
            logger.warning("Left out, as it cannot be read: %s: %s", name, fault)

    def _fail_unreadable(self):
        few = len(self._unreadable) <= self._allowed  # fewer than allowed, but no substitute was left
        named = [f"{name} ({fault})" if fault else name for name, fault in sorted(self._unreadable.items())]
        self.failure = DataError(
            f"{len(self._unreadable)} pictures of {self.size + self.validation_size} cannot be read: "
            f"{quote(named)}. Repair or remove them{'' if few else ', or raise --max-unreadable'}. "
            f"Received: --max-unreadable {self.max_unreadable:g}"
        )
        raise self.failure


def _filled(column, count):
    """Pads a column with zeros at its end to the length `count`."""
    missing = [(0, count - tf.shape(column)[0]), *[(0, 0)] * (column.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(column, missing), (count, *column.shape[1:]))
