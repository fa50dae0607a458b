"""Feature maps of other sizes: pooled to a few bins, and resized bilinearly."""

import keras
from keras import ops

from keras_cnv2.arguments import positive_int
from keras_cnv2.layers.built import needs_build


@keras.saving.register_keras_serializable(package="keras_cnv2")
class BinPooling(keras.layers.Layer):
    """Averages each of `bins` x `bins` parts of a feature map of any size: PyTorch's adaptive average pooling.

    Bin `i` of `n` of a side `s` holds the positions from `floor(i * s / n)` up to `ceil((i + 1) * s / n)`, so that bins
    overlap where `n` does not divide `s`, and repeat positions where `s` is smaller. As two matrix products it needs no
    static size.

    Args:
        bins: Positive int.

    Call arguments:
        x: Float tensor `(N, H, W, C)`.

    Returns:
        A tensor `(N, bins, bins, C)`; the averages are taken in float32 at least.

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
        """The matrix `(bins, side)` whose rows average a bin each."""
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
    """Resizes feature maps to the height and width of others: bilinear, the centres of pixels at halves.

    Call arguments:
        x: Float tensor `(N, H, W, C)`.
        reference: Tensor `(N, height, width, ...)` of any dtype, of which the size alone is read.

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
        return super().get_config()  # Keras's automatic one cannot hold a dtype policy


def resize(x, size):
    """Bilinear, as PyTorch does it with `align_corners=False`.

    Args:
        x: Float tensor `(N, H, W, C)`.
        size: (height, width), ints or int tensors.

    Returns:
        A tensor `(N, height, width, C)` of the dtype of `x`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Keras compares the size with zero, which it cannot while a graph computes it.
        return tf.cast(tf.image.resize(x, size, "bilinear", antialias=False), x.dtype)
    return ops.image.resize(x, size, interpolation="bilinear", antialias=False, data_format="channels_last")
