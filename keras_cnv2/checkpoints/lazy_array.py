"""An array in a file, read when it is asked for."""

import numpy as np

from keras_cnv2.errors import CheckpointError


class LazyArray:
    """Shape and dtype of an array in a file. `np.asarray` reads it.

    Files are checked against a model by these alone, so a file that claims a huge array never gets memory for it.

    Args:
        shape: Tuple of ints.
        dtype: NumPy dtype, or the name of one that NumPy lacks.
        read: Function that returns the array.
    """

    def __init__(self, shape, dtype, read):
        self.shape = tuple(shape)
        self.dtype = dtype
        self._read = read

    def __array__(self, dtype=None, copy=None):
        # Whatever goes wrong inside a damaged file, of the many errors that libraries have for it, is one error here.
        try:
            return np.asarray(self._read(), dtype)
        except Exception as error:
            raise damaged(error) from error


def damaged(error):
    """The error for a file that cannot be read, from the error that was met."""
    return damage(f"{type(error).__name__}: {str(error)[:200]}")


def damage(what):
    """The error for a file that cannot be read, from a text that says what was met."""
    return CheckpointError(
        "the weights file is damaged, cut off or not of the kind that its name says; nothing was loaded. "
        f"Get it again, or give another. Received: {what}"
    )
