import keras
from keras import ops

from keras_cnv2.arguments import positive_int
from keras_cnv2.layers.built import needs_build


@keras.saving.register_keras_serializable(package="keras_cnv2")
class Standardize(keras.layers.Layer):
    """Layer normalization without scale and shift, over the last axis; in float32 at least.

    Args:
        epsilon: Small positive float, added to the variance.

    Call arguments:
        x: Float tensor `(..., C)`.

    Returns:
        A tensor of the shape of `x`, in the compute dtype.
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.built = not needs_build(self)

    def call(self, x):
        x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        return ops.cast(centred * ops.rsqrt(variance + self.epsilon), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_cnv2")
class FoldedBlock(keras.layers.Layer):
    """A `ConvNeXtV2Block` for inference, as `keras_cnv2.fold` makes it.

    Depthwise 7x7 -> standardize -> dense C to 4C -> GELU (exact) -> GRN's factors -> dense 4C to C -> add the input.

    LayerNorm's scale and shift are part of the first dense layer, GRN's beta of the second one's bias. GRN's factors,
    one an image and wide channel, multiply the activations, `H * W` numbers a channel, or the rows of the second
    kernel, C numbers a channel: whichever are known to be fewer.

    Args:
        dim: Int, the number of channels C.
        norm_epsilon: Float, LayerNorm's epsilon.
        grn_epsilon: Float, GRN's epsilon.

    Call arguments:
        x: Float tensor `(N, H, W, C)`.

    Returns:
        A tensor of the shape of `x`.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.2, figure 5; the algebra is ours.
    """

    def __init__(self, dim, norm_epsilon=1e-6, grn_epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.dim = positive_int("dim", dim)
        self.norm_epsilon = norm_epsilon
        self.grn_epsilon = grn_epsilon
        dtype = self.dtype_policy
        self.dwconv = keras.layers.DepthwiseConv2D(
            7, padding="same", data_format="channels_last", dtype=dtype, name="dwconv"
        )
        self.norm = Standardize(norm_epsilon, dtype=dtype, name="norm")
        self.pwconv1 = keras.layers.Dense(4 * self.dim, dtype=dtype, name="pwconv1")
        self.pwconv2 = keras.layers.Dense(self.dim, dtype=dtype, name="pwconv2")

    def build(self, x_shape):
        self.dwconv.build(x_shape)
        self.pwconv1.build((None, self.dim))
        self.gamma = self.add_weight(name="gamma", shape=(4 * self.dim,), initializer="zeros", autocast=False)
        self.pwconv2.build((None, 4 * self.dim))

    def call(self, x):
        # Two axes from here on: only so do TensorFlow's kernels join product, bias and GELU.
        y = self.norm(ops.reshape(self.dwconv(x), (-1, self.dim)))
        y = keras.activations.gelu(self.pwconv1(y), approximate=False)
        factors = self.grn_factors(ops.reshape(y, (ops.shape(x)[0], -1, 4 * self.dim)))
        if None not in x.shape[1:3] and x.shape[1] * x.shape[2] > self.dim:
            y = self._dense_with_scaled_rows(y, factors, x.shape[0])
        else:
            y = ops.reshape(y, (ops.shape(x)[0], -1, 4 * self.dim)) * ops.expand_dims(factors, 1)
            y = self.pwconv2(ops.reshape(y, (-1, 4 * self.dim)))
        return x + ops.reshape(y, ops.shape(x))

    def _dense_with_scaled_rows(self, y, factors, images):
        """`pwconv2` of `y` `(N * L, 4C)`, whose kernel's rows are multiplied with each image's factors `(N, 4C)`."""
        kernel = ops.expand_dims(factors, -1) * self.pwconv2.kernel
        if images == 1:  # one product with two axes again
            return ops.matmul(y, kernel[0]) + self.pwconv2.bias
        y = ops.matmul(ops.reshape(y, (ops.shape(factors)[0], -1, 4 * self.dim)), kernel)
        return ops.reshape(y, (-1, self.dim)) + self.pwconv2.bias

    def grn_factors(self, y):
        """What GRN multiplies activations `(N, L, 4C)` with: `(N, 4C)`."""
        g = _norms(ops.cast(y, keras.backend.result_type(y.dtype, "float32")))
        n = g / (ops.mean(g, axis=-1, keepdims=True) + self.grn_epsilon)
        return ops.cast(self.gamma * n + 1, self.compute_dtype)

    def compute_output_shape(self, x_shape):
        return x_shape

    def get_config(self):
        return {
            **super().get_config(),
            "dim": self.dim,
            "norm_epsilon": self.norm_epsilon,
            "grn_epsilon": self.grn_epsilon,
        }


def _norms(y):
    """L2 norms over the middle axis."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.math.reduce_euclidean_norm(y, axis=1)  # one pass; a square and a sum are two, and a copy
    return ops.sqrt(ops.sum(ops.square(y), axis=1))
