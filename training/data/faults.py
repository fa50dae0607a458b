"""Faults of pictures that show while these are loaded: what is logged, how many are allowed, what ends a pipeline."""

import contextlib
import logging
import os
import threading

import numpy as np
import tensorflow as tf

from keras_cnv2.images.grey_levels import small_range

from ..errors import DataError
from .errors import quote

logger = logging.getLogger(__name__)

# This many unreadable pictures are always tolerated, however small the data set is.
TOLERATED = 10

# How many 16-bit pictures that keep only few grey levels are named in the log.
NAMED = 10


class Faults:
    """The faults of one source's pictures. Threads of tf.data may call all methods at the same time.

    Args:
        pictures: Number of all pictures.
        max_unreadable: Largest share of them that may be unreadable; ten are always allowed.

    Attributes:
        failure: The `DataError` that ended a pipeline, or `None`.
    """

    def __init__(self, pictures, max_unreadable):
        self.pictures = pictures
        self.max_unreadable = max_unreadable
        self.failure = None
        self._unreadable = {}  # name -> reason, or "" if it is unknown
        self._known = set()
        self._small_ranges = 0
        self._lock = threading.Lock()

    @property
    def allowed(self):
        """Number of pictures that may be unreadable."""
        # Rounded because in floats, 0.29 * 100 is a little less than 29.
        return max(TOLERATED, int(round(self.max_unreadable * self.pictures, 6)))

    def fail(self, error):
        """Raises an error that ends the pipeline, and keeps it: tf.data ignores it or turns it into one of its own."""
        self.failure = error
        raise error

    @contextlib.contextmanager
    def clear_errors(self):
        """A context that replaces TensorFlow's error about a failed pipeline by the `DataError` that caused it."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.failure is None:
                raise
            raise self.failure from error

    def report(self, tried, readable, count):
        """Logs the pictures that turned out to be unreadable.

        Args:
            tried: Names of all pictures that were tried, bytes.
            readable: Indices of those that were read.
            count: Number of pictures that had to be read.

        Raises:
            DataError: If too many pictures are unreadable so far, or another fault made loading fail.
        """
        if self.failure is not None:
            raise self.failure
        with self._lock:
            for name in map(os.fsdecode, np.delete(tried, readable)):
                if name not in self._unreadable:
                    self._unreadable[name] = ""
                    logger.warning("Left out, as it cannot be read: %s", name)
            if len(self._unreadable) > self.allowed or len(readable) < count:
                self._fail_unreadable()

    def leave_out(self, faults):
        """Logs pictures that are known to be unreadable before loading begins.

        Args:
            faults: Dict from names to reasons.

        Raises:
            DataError: If there are too many of them.
        """
        self._unreadable |= faults
        if len(self._unreadable) > self.allowed:
            self._fail_unreadable()
        for name, fault in faults.items():
            logger.warning("Left out, as it cannot be read: %s: %s", name, fault)

    def _fail_unreadable(self):
        few = len(self._unreadable) <= self.allowed  # fewer than allowed, but no substitute was left
        named = [f"{name} ({fault})" if fault else name for name, fault in sorted(self._unreadable.items())]
        self.fail(
            DataError(
                f"{len(self._unreadable)} pictures of {self.pictures} cannot be read: "
                f"{quote(named)}. Repair or remove them{'' if few else ', or raise --max-unreadable'}. "
                f"Received: --max-unreadable {self.max_unreadable:g}"
            )
        )

    def is_new(self, *fault):
        """Returns whether this is the first call with these arguments, so that a fault is logged only once."""
        with self._lock:
            is_new = fault not in self._known
            self._known.add(fault)
        return is_new

    def say_unturned(self, name):
        """Logs once that labels ignore the EXIF orientation of their picture."""
        if self.is_new("unturned"):
            logger.warning(
                "labels have the size of their picture as it is stored, before its EXIF orientation is applied: "
                "such pictures are not turned, the first is %s",
                os.fsdecode(name),
            )

    def say_small_range(self, contents, name):
        """Logs the message of `small_range` for a picture, once, and only for the first `NAMED`."""
        if self.is_new("16 bits", name) and self._small_ranges < NAMED and (fault := small_range(contents)):
            with self._lock:
                self._small_ranges += 1
            logger.warning("%s %s", os.fsdecode(name), fault)
            if self._small_ranges == NAMED:
                logger.warning("this is not reported for further pictures of 16 bits")


def after_call(values, condition, function, arguments):
    """Calls a Python function from a graph if a condition holds. An error that it raises becomes one of the graph.

    Args:
        values: A structure of tensors.
        condition: Scalar bool tensor.
        function: Function of arrays, whose result is not used.
        arguments: Function without arguments that returns the list of these arrays' tensors. They are computed only if
            the condition holds.

    Returns:
        The values, which are not computed before the function was called.
    """

    def called(*arrays):
        function(*arrays)
        return np.bool_(True)

    call = tf.cond(condition, lambda: tf.numpy_function(called, arguments(), tf.bool), lambda: tf.constant(False))
    with tf.control_dependencies([call]):
        return tf.nest.map_structure(tf.identity, values)
