import keras
from keras import ops

from keras_cnv2.arguments import positive_int
from keras_cnv2.layers.built import needs_build


@keras.saving.register_keras_serializable(package="keras_cnv2")
class Standardize(keras.layers.Layer):
    """Layer normalization over the last axis without scale and shift, computed in at least float32.

    Args:
        epsilon: Small positive float that is added to the variance.

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
    """A `ConvNeXtV2Block` for inference, made by `keras_cnv2.fold`.

    Depthwise 7x7 -> standardize -> dense C to 4C -> GELU (exact) -> GRN's factors -> dense 4C to C -> add the input.

    LayerNorm's scale and shift are part of the first dense layer, and GRN's beta is part of the bias of the second one.
    GRN's factors, one per image and channel (of 4C), multiply the rows of the second kernel, C values per channel, if
    H and W are known and `H * W > C`. Otherwise they multiply the activations, `H * W` values per channel.

    Args:
        dim: Int, the number of channels C.
        norm_epsilon: Float, LayerNorm's epsilon.
        grn_epsilon: Float, GRN's epsilon.
        dilation: Int, the dilation rate of the depthwise convolution.

    Call arguments:
        x: Float tensor `(N, H, W, C)`.

    Returns:
        A tensor of the shape of `x`.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3.2, figure 5. The folding is not part of the paper.
    """

    def __init__(self, dim, norm_epsilon=1e-6, grn_epsilon=1e-6, dilation=1, **kwargs):
        super().__init__(**kwargs)
        self.dim = positive_int("dim", dim)
        self.norm_epsilon = norm_epsilon
        self.grn_epsilon = grn_epsilon
        self.dilation = dilation
        dtype = self.dtype_policy
        self.dwconv = keras.layers.DepthwiseConv2D(
            7, padding="same", dilation_rate=dilation, data_format="channels_last", dtype=dtype, name="dwconv"
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
        # Rank-2 tensors from here on: TensorFlow fuses product, bias and GELU for these only.
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
        """Applies `pwconv2` to `y` `(N * L, 4C)` after scaling its kernel's rows by the factors `(N, 4C)` per image."""
        kernel = ops.expand_dims(factors, -1) * self.pwconv2.kernel
        if images == 1:  # a product of rank-2 tensors, which TensorFlow can fuse
            return ops.matmul(y, kernel[0]) + self.pwconv2.bias
        y = ops.matmul(ops.reshape(y, (ops.shape(factors)[0], -1, 4 * self.dim)), kernel)
        return ops.reshape(y, (-1, self.dim)) + self.pwconv2.bias

    def grn_factors(self, y):
        """Computes the factors `(N, 4C)` by which GRN multiplies activations `(N, L, 4C)`."""
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
            "dilation": self.dilation,
        }


def _norms(y):
    """Computes L2 norms over axis 1."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.math.reduce_euclidean_norm(y, axis=1)  # one pass; `square` and `sum` take two passes and a copy
    return ops.sqrt(ops.sum(ops.square(y), axis=1))
