"""Layers that change the size of feature maps: adaptive average pooling, and bilinear resizing."""

import keras
from keras import ops

from keras_cnv2.arguments import positive_int
from keras_cnv2.layers.built import needs_build


@keras.saving.register_keras_serializable(package="keras_cnv2")
class BinPooling(keras.layers.Layer):
    """Adaptive average pooling as in PyTorch: averages a feature map of any size over `bins` x `bins` bins.

    Along a side of length `s`, bin `i` of `n` covers the positions from `floor(i * s / n)` up to, but not including,
    `ceil((i + 1) * s / n)`. Bins overlap if `n` does not divide `s`, and repeat positions if `s` is less than `n`. The
    pooling is computed as two matrix products, so that it needs no static size.

    Args:
        bins: Positive int, the number of bins along each side.

    Call arguments:
        x: Float tensor `(N, H, W, C)`.

    Returns:
        A tensor `(N, bins, bins, C)` of the dtype of `x`; the averages are computed in at least float32.

    Source: PSPNet (arXiv 1612.01105), section 3.2.
    """

    def __init__(self, bins, **kwargs):
        super().__init__(**kwargs)
        self.bins = positive_int("bins", bins)
        self.built = not needs_build(self)

    def call(self, x):
        _, height, width, _ = ops.shape(x)
        dtype = keras.backend.result_type(x.dtype, "float32")
        pooled = ops.einsum("ih,nhwc->niwc", self._averages(height, dtype), ops.cast(x, dtype))
        return ops.cast(ops.einsum("jw,niwc->nijc", self._averages(width, dtype), pooled), x.dtype)

    def _averages(self, side, dtype):
        """Returns the matrix `(bins, side)` each of whose rows averages over one bin."""
        bins, position = ops.arange(self.bins, dtype="int32")[:, None], ops.arange(side, dtype="int32")
        start, end = bins * side // self.bins, ((bins + 1) * side + self.bins - 1) // self.bins
        inside = ops.logical_and(position >= start, position < end)
        return ops.cast(inside, dtype) / ops.cast(end - start, dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.bins, self.bins, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}


@keras.saving.register_keras_serializable(package="keras_cnv2")
class ResizeLike(keras.layers.Layer):
    """Resizes feature maps bilinearly to the height and width of a reference, with half-pixel centres.

    Call arguments:
        x: Float tensor `(N, H, W, C)`.
        reference: Tensor `(N, height, width, ...)` of any dtype. Only its size is used.

    Returns:
        A tensor `(N, height, width, C)` of the layer's dtype.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = not needs_build(self)

    def call(self, x, reference):
        return resize(x, ops.shape(reference)[1:3])

    def compute_output_shape(self, x_shape, reference_shape):
        return (x_shape[0], *reference_shape[1:3], x_shape[-1])

    def get_config(self):
        return super().get_config()  # defined because Keras's automatic config cannot contain a dtype policy


def resize(x, size):
    """Resizes feature maps bilinearly, as PyTorch does with `align_corners=False`.

    Args:
        x: Float tensor `(N, H, W, C)`.
        size: (height, width), ints or int tensors.

    Returns:
        A tensor `(N, height, width, C)` of the dtype of `x`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # `ops.image.resize` compares the size with zero, which fails for a symbolic size in a graph.
        return tf.cast(tf.image.resize(x, size, "bilinear", antialias=False), x.dtype)
    return ops.image.resize(x, size, interpolation="bilinear", antialias=False, data_format="channels_last")
