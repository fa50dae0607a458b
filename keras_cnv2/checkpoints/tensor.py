"""One tensor of a checkpoint, and how it becomes the value of a variable."""

from typing import Any, NamedTuple

import numpy as np

from keras_cnv2.checkpoints.layout import Layout

STEM = "stem_conv/kernel"
FLOATS = ("float16", "bfloat16", "float32", "float64")


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Args:
        path: Keras path of the variable that it is for.
        name: Its name in the checkpoint.
        layout: Its `Layout`.
        array: NumPy array, lazy array, PyTorch tensor or nested list.
    """

    path: str
    name: str
    layout: Layout
    array: Any

    @property
    def shape_here(self):
        """The shape in Keras; `None` if it cannot be derived."""
        return self.layout.shape_here(shape_of(self.array))

    def misfits(self, shape):
        """Returns a list of messages about what does not fit a variable of this shape."""
        expected, received = self.layout.shape_there(shape), shape_of(self.array)
        if received != expected and not self.has_other_channels(shape):
            return [f"shape: {self.name} is {received}, expected {expected}"]
        dtype = str(getattr(self.array, "dtype", None) or np.asarray(self.array).dtype).removeprefix("torch.")
        return [] if dtype in FLOATS else [f"dtype: {self.name} is {dtype}, expected floating point"]

    def has_other_channels(self, shape):
        """Whether this is a stem kernel for RGB, and the variable is one for another number of channels."""
        if self.path != STEM or self.shape_here is None:
            return False
        height, width, channels, dim = self.shape_here
        return channels == 3 != shape[2] and (height, width, dim) == (*shape[:2], shape[3])

    def read(self):
        """Returns the values as a NumPy array. PyTorch itself cannot convert bfloat16 or GPU tensors."""
        has_torch = hasattr(self.array, "detach")
        return np.asarray(self.array.detach().cpu().float() if has_torch else self.array)

    def here(self, array, shape):
        """Converts an array from `read` to Keras's layout and to a variable's shape.

        A stem kernel for RGB is summed for one channel, and repeated and scaled down for other numbers of channels.
        """
        if not self.has_other_channels(shape):
            return self.layout.to_here(array, shape)
        kernel, channels = self.layout.to_here(array, self.shape_here), shape[2]
        if channels == 1:
            return kernel.sum(axis=2, keepdims=True)
        return kernel[:, :, np.arange(channels) % 3] * (3 / channels)


def shape_of(array):
    """The shape of an array, tensor, lazy array or nested list; lazy arrays are not read."""
    return tuple(array.shape) if hasattr(array, "shape") else np.shape(array)
