"""Pictures to batches with tf.data: what folders and TensorFlow Datasets have in common.

A batch of training is a function of its number and the seed alone: a run goes on anywhere as if it had never stopped.
"""

import contextlib
import logging
import os
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_cnv2.preprocessing import decode, to_square
from training.crops import random_crop
from training.draws import Draws
from training.shares import WHOLE

Dataset = tf.data.Dataset
logger = logging.getLogger(__name__)

# Where validation pictures are looked for, in a folder and among the splits of TensorFlow Datasets.
VALIDATION_NAMES = ("val", "validation", "valid", "test")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# How many names a message quotes.
QUOTED = 5

# Of the pipeline that loads one batch: made anew for each, it would take longer to rewrite than that saves.
_AS_WRITTEN = tf.data.Options()
_AS_WRITTEN.autotune.enabled = False
_AS_WRITTEN.experimental_optimization.apply_default_optimizations = False


class DataError(ValueError):
    """Data that cannot be trained on."""


class Pictures:
    """What `Folder` and `Tfds` have in common: a source of data as `training.loop` describes it.

    A picture that cannot be read is named in the log and left out; in training another one takes its place.

    Args:
        size: Number of training images.
        validation_size: Number of validation images.
        class_names: Tuple of strings, or `None` for pictures without labels.
        max_unreadable: Largest share of all pictures that may be unreadable.

    Attributes:
        failure: The `DataError` that ended a pipeline, or `None`.
    """

    channels = 3

    def __init__(self, size, validation_size, class_names, max_unreadable):
        if keras.backend.backend() != "tensorflow":
            raise DataError(
                "Folders and TensorFlow Datasets need Keras's TensorFlow backend; on others train on arrays, in an "
                f".npz file. Received: the backend {keras.backend.backend()}"
            )
        self.size = size
        self.validation_size = validation_size
        self.class_names = class_names
        self.max_unreadable = max_unreadable
        self.failure = None
        self._unreadable = set()
        self._lock = threading.Lock()

    # What a subclass has. Its `rows` are tensors that stand for the pictures of a batch.

    def _epochs(self, recipe, share):
        """A function from an epoch, a scalar tensor, to a worker's rows of its batches in their order: a `Dataset`."""
        raise NotImplementedError

    def _validation_rows(self, batch_size):
        """All validation rows once, for all workers: a `Dataset`."""
        raise NotImplementedError

    def _example_rows(self, batch_size):
        """Rows that are always the same, of validation pictures if there are any: a `Dataset`."""
        raise NotImplementedError

    def _open(self, rows, key):
        """Encoded picture and label of one row; for keys beyond the rows, those of pictures to take their place."""
        raise NotImplementedError

    def _names(self, rows, keys):
        """What a person knows these pictures by: a string tensor."""
        raise NotImplementedError

    def training(self, recipe, first_batch=0, augmentation=None, share=WHOLE):
        """All batches from one on, without end: random resized crops, in a new order each epoch.

        What becomes of a picture depends on its place in the batch, not on the worker that loads it. Only mixup and
        CutMix find their partners within a worker's part.

        Args:
            recipe: The `training.recipes.Recipe`.
            first_batch: Number of the first batch. None of those before is decoded.
            augmentation: Optional `training.augment.Augmentation`.
            share: `training.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, N the share's part of
            `recipe.step_batch`; with an augmentation, of such images and float32 targets `(N, classes)`.

        Raises:
            DataError: If there is an augmentation, but no labels.
        """
        if augmentation is not None and self.class_names is None:
            raise DataError("Pictures without labels train without augmentation. Received: labelled=False")

        part = share.of(recipe.step_batch)
        count = part.stop - part.start

        def load_batch(number, rows):
            def load(key):
                contents, label = self._open(rows, key)
                draws = Draws(recipe.seed, number, part.start + key)
                return random_crop(contents, recipe.image_size, recipe.crop_area, recipe.flip, draws), label

            def change(key, image, label):
                draws = Draws(recipe.seed, number, part.start + key, 0)
                return key, tf.ensure_shape(augmentation.image(image, draws), image.shape), label

            if augmentation is None:
                images, _ = self._load(rows, load, count)
                return images
            images, labels = self._load(rows, load, count, change)
            return augmentation.batch(images, labels, Draws(recipe.seed, number, share.worker, 1))

        steps = recipe.steps_per_epoch(self.size)
        rows_of = self._epochs(recipe, share)

        def of_epoch(epoch):
            batches = rows_of(epoch).take(steps).enumerate(epoch * steps)
            return batches.skip(tf.maximum(first_batch - epoch * steps, 0))

        batches = Dataset.range(first_batch // steps, np.iinfo("int64").max).flat_map(of_epoch)
        # Two at a time, so that no core is idle when a batch is nearly done.
        return batches.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(1)

    def validation(self, recipe, batch_size, share=WHOLE):
        """Every validation image once, as in evaluation, with its label.

        Args:
            recipe: The `training.recipes.Recipe`.
            batch_size: Int. All batches are whole, for the sake of static shapes; empty places have the weight 0.
            share: `training.shares.Share`, the part of each batch that is loaded.

        Returns:
            A `Dataset` of float32 images `(N, image_size, image_size, 3)` in 0..255, one-hot float32 labels
            `(N, classes)` and float32 weights `(N,)`, N the share's part of `batch_size`; `None` if there are no
            validation images, or no labels.
        """
        if not self.validation_size or self.class_names is None:
            return None
        part = share.of(batch_size)

        def load_batch(rows):
            rows = tf.nest.map_structure(lambda column: column[part], rows)
            images, labels = self._load_squares(rows, recipe)
            weights = tf.ones(tf.shape(labels), tf.float32)
            columns = images, tf.one_hot(labels, len(self.class_names)), weights
            return tuple(_filled(column, part.stop - part.start) for column in columns)

        rows = self._validation_rows(batch_size)
        return rows.map(load_batch, num_parallel_calls=2, deterministic=True).prefetch(1)

    def examples(self, recipe, count):
        """Always the same images, from validation if there is any.

        Args:
            recipe: The `training.recipes.Recipe`.
            count: Int.

        Returns:
            A float32 array `(count, image_size, image_size, 3)` in 0..255.

        Raises:
            DataError: If there are fewer.
        """
        batches = self._example_rows(count).map(lambda rows: self._load_squares(rows, recipe)[0])
        with self.clear_errors():
            images = [*batches.unbatch().take(count).as_numpy_iterator()]
        if len(images) < count:
            raise DataError(f"There are fewer than {count} pictures that can be read. Received: {len(images)}")
        return np.stack(images)

    @contextlib.contextmanager
    def clear_errors(self):
        """Turns TensorFlow's error about a pipeline that ended into the `DataError` that ended it."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.failure is None:
                raise
            raise self.failure from error

    @property
    def _allowed(self):
        return int(self.max_unreadable * (self.size + self.validation_size))

    def _load_squares(self, rows, recipe):
        """Images as in evaluation and labels, as many as can be read."""

        def load(key):
            contents, label = self._open(rows, key)
            return to_square(decode(contents), recipe.image_size, recipe.resize), label

        return self._load(rows, load)

    def _load(self, rows, load, count=None, change=None):
        """Loads a batch in parallel, without the pictures that cannot be read.

        Args:
            rows: The batch's rows, there may be none.
            load: From the number of a row to image and label; it raises an error if the picture cannot be read.
            count: How many pictures there must be, with others in the place of those that cannot be read. `None`: as
                many as can be read.
            change: Optional function from number, image and label to the same, which may fail for no picture.

        Returns:
            Images and labels in order.
        """
        length = tf.shape(tf.nest.flatten(rows)[0], out_type=tf.int64)[0]
        tries = length if count is None else length + self._allowed + 1

        def load_one(key):
            return (key, *load(key))

        keys = Dataset.range(tries)
        loaded = keys.take(length).map(load_one, num_parallel_calls=CORES, deterministic=True)
        loaded = loaded.concatenate(keys.skip(length).map(load_one)).ignore_errors().take(length)
        if change:
            loaded = loaded.map(change, num_parallel_calls=CORES, deterministic=True)
        batch = loaded.batch(tf.maximum(length, 1))
        nothing = tf.nest.map_structure(lambda spec: tf.zeros((0, *spec.shape[1:]), spec.dtype), batch.element_spec)
        batch = batch.concatenate(Dataset.from_tensors(nothing)).take(1).with_options(_AS_WRITTEN)
        keys, images, labels = batch.get_single_element()

        found = tf.size(keys, tf.int64)
        tried = tf.range(tf.where(found == length, tf.reduce_max(tf.pad(keys + 1, [(0, 1)])), tries))
        reported = tf.cond(
            found < tf.size(tried, tf.int64),
            lambda: tf.numpy_function(self._report, [self._names(rows, tried), keys, count or 0], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        with tf.control_dependencies([reported]):
            return tf.ensure_shape(images, (count, *images.shape[1:])), tf.ensure_shape(labels, (count,))

    def _report(self, tried, readable, count):
        """Logs the pictures that turned out unreadable. Returns how many these are.

        Args:
            tried: Names of all that were tried, bytes.
            readable: Numbers of those that were read.
            count: How many had to be read.

        Raises:
            DataError: If these are too many by now.
        """
        with self._lock:
            for name in map(os.fsdecode, np.delete(tried, readable)):
                if name not in self._unreadable:
                    self._unreadable.add(name)
                    logger.warning("Left out, as it cannot be read: %s", name)
            if len(self._unreadable) > self._allowed or len(readable) < count:
                self.failure = DataError(
                    f"{len(self._unreadable)} pictures of {self.size + self.validation_size} cannot be read: "
                    f"{quote(sorted(self._unreadable))}. Mend or remove them, or raise max_unreadable. "
                    f"Received: max_unreadable={self.max_unreadable:g}"
                )
                raise self.failure
            return np.int64(len(self._unreadable))


def _filled(column, count):
    """The column with zeros at its end, `count` long."""
    missing = [(0, count - tf.shape(column)[0]), *[(0, 0)] * (column.shape.rank - 1)]
    return tf.ensure_shape(tf.pad(column, missing), (count, *column.shape[1:]))


def quote(names):
    """The first of some names, for a message."""
    rest = len(names) - QUOTED
    return ", ".join(names[:QUOTED]) + (f" and {rest} more" if rest > 0 else "")
