"""LayerNorm, and GELU with GRN, compiled with XLA for training on a CPU.

XLA compiles each function and its gradient into few passes over memory, while TensorFlow's kernels need one or more
passes for every operation. Only the input and one number per row or channel are stored for the gradients. The dense
layers and convolutions between these functions stay with oneDNN, whose kernels XLA does not have.
"""

import functools
import math

from keras_cnv2.kernels import cpu

# Values per image, or per batch of known size, from which XLA's compilation pays off: about 0.3 s per function.
WORTH_IT, WORTH_IT_BATCH = 2**14, 2**20

# Keeps the gradient of the square root finite where a channel is zero everywhere. It is far too small to change the sum
# of squares of real activations in float32.
TINY = 1e-24


def applies(shape, dtype):
    """Whether to use the functions of this file in training, for tensors of shape `(N, ..., C)`."""
    batch, *of_an_image = shape
    if not all(isinstance(size, int) for size in of_an_image):  # XLA would compile again for every size
        return False
    numbers = math.prod(of_an_image)
    many = numbers >= WORTH_IT or (isinstance(batch, int) and batch * numbers >= WORTH_IT_BATCH)
    return many and cpu.trains_fast(dtype)


def layer_norm(x, gamma, beta, epsilon):
    """LayerNorm over the last axis of `x` `(M, C)`, computed in float32. The output has the dtype of `x`."""
    import tensorflow as tf

    @tf.custom_gradient
    def norm(x, gamma, beta):
        gradient = _compiled(_norm_gradient, *x.shape[1:])
        return _compiled(_norm, *x.shape[1:])(x, gamma, beta, epsilon), lambda dy: gradient(x, gamma, epsilon, dy)

    return norm(x, *_float32(gamma, beta))


def gelu_grn(x, gamma, beta, epsilon, visible=None):
    """`GRN(gelu(x) * visible)` with the exact GELU, computed in float32. The output has the dtype of `x`.

    Args:
        x: Tensor `(N, L, C)`.
        gamma: Scale of GRN, `(C,)`.
        beta: Shift of GRN, `(C,)`.
        epsilon: Float, the epsilon of GRN.
        visible: Optional tensor `(N, L, 1)`, 1 where visible and 0 where masked.
    """
    import tensorflow as tf

    visible = tf.ones((1, 1, 1)) if visible is None else tf.cast(visible, "float32")
    compiled = {function: _compiled(function, *x.shape[1:]) for function in (_squares, _scaled, _products, _sums, _dx)}

    @tf.custom_gradient
    def response(x, gamma, beta):
        norms = tf.sqrt(compiled[_squares](x, visible) + TINY)
        mean = tf.reduce_mean(norms, -1, keepdims=True) + epsilon
        relative = norms / mean
        scale = gamma * relative + 1

        def gradient(dy):
            dscale = compiled[_products](x, visible, dy)
            drelative = gamma * dscale
            dnorms = (drelative - tf.reduce_mean(drelative * relative, -1, keepdims=True)) / mean
            dx = compiled[_dx](x, visible, scale, dnorms / norms, dy)
            # TensorFlow computes the sums over the batch: XLA would do so in a single thread.
            return dx, tf.reduce_sum(relative * dscale, (0, 1)), tf.reduce_sum(compiled[_sums](dy), 0)

        return compiled[_scaled](x, visible, scale, beta), gradient

    return response(x, *_float32(gamma, beta))


def _float32(*variables):
    import tensorflow as tf

    return [tf.cast(variable, "float32") for variable in variables]


@functools.cache
def _compiled(function, *_shape):
    """Compiles a function, once per shape `_shape`: TensorFlow warns if one function is traced for many shapes."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def _standardize(x, epsilon):
    """Normalises every row of `x` to mean 0 and variance 1, in float32. Returns the rows and their scale factors."""
    import tensorflow as tf

    x = tf.cast(x, "float32")
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(centred**2, -1, keepdims=True) + epsilon)
    return centred * scale, scale


def _norm(x, gamma, beta, epsilon):
    import tensorflow as tf

    return tf.cast(_standardize(x, epsilon)[0] * gamma + beta, x.dtype)


def _norm_gradient(x, gamma, epsilon, dy):
    import tensorflow as tf

    standard, scale = _standardize(x, epsilon)
    dy = tf.cast(dy, "float32")
    d = dy * gamma  # the gradient of `standard`
    along = tf.reduce_mean(d * standard, -1, keepdims=True)
    dx = scale * (d - tf.reduce_mean(d, -1, keepdims=True) - standard * along)
    return tf.cast(dx, x.dtype), tf.reduce_sum(dy * standard, 0), tf.reduce_sum(dy, 0)


# GELU with GRN is split into functions that each pass over memory once and compute GELU again. If it were one function,
# XLA would store GELU in float32 between its passes, and the gradient would take up to three times as long.
# Below, `h` stands for `gelu(x) * visible`.


def _normal_cdf(x):
    import tensorflow as tf

    return 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))


def _squares(x, visible):
    """Sums of the squares of `h` over the positions, `(N, 1, C)`."""
    import tensorflow as tf

    x = tf.cast(x, "float32")
    return tf.reduce_sum((x * _normal_cdf(x) * visible) ** 2, 1, keepdims=True)


def _scaled(x, visible, scale, beta):
    """`h * scale + beta` in the dtype of `x`."""
    import tensorflow as tf

    wide = tf.cast(x, "float32")
    return tf.cast(wide * _normal_cdf(wide) * visible * scale + beta, x.dtype)


def _products(x, visible, dy):
    """Sums of `h * dy` over the positions, `(N, 1, C)`."""
    import tensorflow as tf

    x, dy = tf.cast(x, "float32"), tf.cast(dy, "float32")
    return tf.reduce_sum(x * _normal_cdf(x) * visible * dy, 1, keepdims=True)


def _sums(dy):
    """Sums of `dy` over the positions, `(N, C)`."""
    import tensorflow as tf

    return tf.reduce_sum(tf.cast(dy, "float32"), 1)


def _dx(x, visible, scale, response, dy):
    """The gradient with respect to `x`, from that with respect to `h`, which is `dy * scale + h * response`."""
    import tensorflow as tf

    wide, dy = tf.cast(x, "float32"), tf.cast(dy, "float32")
    cdf = _normal_cdf(wide)
    density = tf.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    dh = dy * scale + wide * cdf * visible * response
    return tf.cast(dh * visible * (cdf + wide * density), x.dtype)
