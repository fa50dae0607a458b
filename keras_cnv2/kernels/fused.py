"""The elementwise parts of a block, for training on a CPU: LayerNorm, and GELU with GRN.

XLA compiles each, and its gradient, into few passes over memory, where TensorFlow's kernels take one or more for every
operation. For the gradients nothing is kept but the input and one number a row or channel. The dense layers and the
convolutions between them stay with oneDNN, whose kernels XLA has not.
"""

import functools
import math

from keras_cnv2.kernels import cpu

# Numbers of an image from which on it is worth the third of a second that XLA compiles.
WORTH_IT = 2**14

# Keeps the gradient of the square root finite where a channel is zero everywhere; far below anything
# that float32 would notice beside a real activation.
TINY = 1e-24


def applies(shape, dtype):
    """Whether to take this file's functions in training, for tensors of the shape `(N, ..., C)`."""
    of_an_image = shape[1:]
    known = all(isinstance(size, int) for size in of_an_image)  # XLA compiles anew for every size
    return known and math.prod(of_an_image) >= WORTH_IT and cpu.trains_fast(dtype)


def layer_norm(x, gamma, beta, epsilon):
    """LayerNorm over the last axis of `x` `(M, C)`, in float32; output in the dtype of `x`."""
    import tensorflow as tf

    @tf.custom_gradient
    def norm(x, gamma, beta):
        gradient = _compiled(_norm_gradient, *x.shape[1:])
        return _compiled(_norm, *x.shape[1:])(x, gamma, beta, epsilon), lambda dy: gradient(x, gamma, epsilon, dy)

    return norm(x, *_float32(gamma, beta))


def gelu_grn(x, gamma, beta, epsilon, visible=None):
    """`GRN(gelu(x) * visible)`, with the exact GELU, in float32; output in the dtype of `x`.

    Args:
        x: Tensor `(N, L, C)`.
        gamma: GRN's, `(C,)`.
        beta: GRN's, `(C,)`.
        epsilon: GRN's.
        visible: Optional tensor `(N, L, 1)`, 1 where visible and 0 where hidden.
    """
    import tensorflow as tf

    visible = tf.ones((1, 1, 1)) if visible is None else tf.cast(visible, "float32")

    @tf.custom_gradient
    def response(x, gamma, beta):
        y, norms = _compiled(_gelu_grn, *x.shape[1:])(x, visible, gamma, beta, epsilon)
        gradient = _compiled(_gelu_grn_gradient, *x.shape[1:])
        return y, lambda dy: gradient(x, visible, norms, gamma, epsilon, dy)

    return response(x, *_float32(gamma, beta))


def _float32(*variables):
    import tensorflow as tf

    return [tf.cast(variable, "float32") for variable in variables]


@functools.cache
def _compiled(function, *_shape):
    """One for each shape of an image's tensor: TensorFlow warns of functions that are traced for many."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def _standardize(x, epsilon):
    """In float32: `x` with mean 0 and variance 1 in every row, and what it was multiplied by."""
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


def _normal_cdf(x):
    import tensorflow as tf

    return 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))


def _relative(norms, epsilon):
    """GRN's normalized responses `(N, 1, C)`, and the mean by which the norms were divided."""
    import tensorflow as tf

    mean = tf.reduce_mean(norms, -1, keepdims=True) + epsilon
    return norms / mean, mean


def _gelu_grn(x, visible, gamma, beta, epsilon):
    import tensorflow as tf

    wide = tf.cast(x, "float32")
    h = wide * _normal_cdf(wide) * visible
    norms = tf.sqrt(tf.reduce_sum(h**2, 1, keepdims=True) + TINY)
    n, _ = _relative(norms, epsilon)
    return tf.cast(h * (gamma * n + 1) + beta, x.dtype), norms


def _gelu_grn_gradient(x, visible, norms, gamma, epsilon, dy):
    import tensorflow as tf

    wide, dy = tf.cast(x, "float32"), tf.cast(dy, "float32")
    cdf = _normal_cdf(wide)
    h = wide * cdf * visible
    n, mean = _relative(norms, epsilon)
    hdy = tf.reduce_sum(h * dy, 1, keepdims=True)
    dn = gamma * hdy
    dnorms = (dn - tf.reduce_mean(dn * n, -1, keepdims=True)) / mean
    dh = dy * (gamma * n + 1) + h * (dnorms / norms)
    density = tf.exp(-0.5 * wide**2) / math.sqrt(2 * math.pi)
    dx = dh * visible * (cdf + wide * density)
    return tf.cast(dx, x.dtype), tf.reduce_sum(n * hdy, (0, 1)), tf.reduce_sum(dy, (0, 1))
