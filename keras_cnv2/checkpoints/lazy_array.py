"""An array in a file that is read on demand."""

import numpy as np

from keras_cnv2.errors import CheckpointError


class LazyArray:
    """The shape and dtype of an array in a file; `np.asarray` reads the numbers.

    Files are compared with a model by shape and dtype only, so no memory is allocated for a huge array that a file
    claims to hold.

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
        # Libraries raise many kinds of errors for a damaged file; here they all become a `CheckpointError`.
        try:
            return np.asarray(self._read(), dtype)
        except Exception as error:
            raise damaged(error) from error


def damaged(error):
    """Returns the `CheckpointError` for a file that cannot be read, from the error that was raised."""
    return damage(f"{type(error).__name__}: {str(error)[:200]}")


def damage(what):
    """Returns the `CheckpointError` for a file that cannot be read, from a text that describes the problem."""
    return CheckpointError(
        "the weights file is damaged, incomplete or not of the type that its suffix says; nothing was loaded. "
        f"Get the file again, or give another one. Received: {what}"
    )
