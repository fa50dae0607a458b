"""The gradients for CPUs against TensorFlow's own."""

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.fcmae import masking
from keras_cnv2.kernels import cpu, depthwise

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TensorFlow")
RNG = np.random.default_rng(0)


def normal(*shape):
    return tf.constant(RNG.standard_normal(shape), "float32")


def plain(x, kernel, bias):
    return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME"), bias)


def gradients(function, *tensors):
    """Output and gradients of a function, whose elements have different weights."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = function(*tensors)
        total = tf.reduce_sum(tf.cast(y, "float32") * (2 + np.cos(np.arange(y.shape.num_elements()))).reshape(y.shape))
    return [y, *tape.gradient(total, tensors)]


def assert_close(received, expected, tolerance):
    for one, two in zip(received, expected, strict=True):
        one, two = (np.asarray(tf.cast(value, "float64")) for value in (one, two))
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance * abs(two).max())


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 5, 9, 5), 7), ((1, 1, 1, 1), 7), ((2, 14, 14, 16), 7), ((2, 7, 6, 3), 3), ((2, 3, 2, 4), 1)],
)
def test_gradients_are_tensorflows(shape, size, compiled):
    tensors = normal(*shape), normal(size, size, shape[-1], 1), normal(shape[-1])
    wrap = tf.function if compiled else (lambda function: function)
    received, expected = (wrap(lambda *t, f=f: gradients(f, *t))(*tensors) for f in (depthwise.convolve, plain))
    assert_close(received, expected, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-2), ("bfloat16", 2e-2)])
def test_half_precision(dtype, tolerance):
    tensors = [tf.cast(t, dtype) for t in (normal(4, 8, 8, 16), normal(7, 7, 16, 1), normal(16))]
    received = gradients(depthwise.convolve, *tensors)
    assert {tensor.dtype for tensor in received} == {tf.as_dtype(dtype)}
    assert_close(received, gradients(plain, *(tf.cast(t, "float64") for t in tensors)), tolerance)


def test_second_order():
    def norm_of_gradient(function):
        def of(x, kernel, bias):
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                y = tf.reduce_sum(function(x, kernel, bias) ** 3)
            return tape.gradient(y, kernel) ** 2

        return of

    tensors = normal(2, 4, 5, 3), normal(3, 3, 3, 1), normal(3)
    received, expected = (gradients(norm_of_gradient(f), *tensors) for f in (depthwise.convolve, plain))
    assert_close(received, expected, 1e-4)


def test_sizes_that_are_known_at_run_time_only():
    spec = [tf.TensorSpec(shape) for shape in ((None, None, None, 3), (7, 7, 3, 1), (3,))]
    step = tf.function(lambda x, k, b: tf.gradients(tf.sin(depthwise.convolve(x, k, b)), [x, k, b]), spec)
    x, kernel, bias = normal(2, 5, 4, 3), normal(7, 7, 3, 1), normal(3)
    expected = tf.function(lambda x, k, b: tf.gradients(tf.sin(plain(x, k, b)), [x, k, b]))(x, kernel, bias)
    assert_close(step(x, kernel, bias), expected, 1e-5)


@pytest.mark.parametrize("p", [1, 2, 4, 8])
def test_between_visible_patches_as_masked_grid(p):
    hidden = np.array([[[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 0, 1]]], "float32")
    patches = masking.VisiblePatches(tf.constant(hidden), 3)
    layer = keras_cnv2.MaskedDepthwiseConv2D(7, bias_initializer="normal")
    layer.build((None, None, None, 5))
    x = normal(6, p, p, 5)
    grids = masking.enlarge(hidden, p)

    def run(function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            total = tf.reduce_sum(tf.sin(y))
        return [y, *tape.gradient(total, [x, *layer.trainable_variables])]

    expected = run(lambda x: patches.gather(layer(patches.scatter(x), hidden=grids)))
    assert_close(run(lambda x: layer(x, patches=patches, training=True)), expected, 1e-5)
    assert_close(run(lambda x: layer(x, patches=patches)), expected, 1e-5)


def test_where_it_does_not_apply(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not cpu.trains_fast("float32")
    assert not cpu.trains_fast("float16")
