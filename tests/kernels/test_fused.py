"""What XLA compiles for training on CPUs against the same in plain operations."""

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.kernels import cpu, depthwise, fused

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TensorFlow")
RNG = np.random.default_rng(0)


def normal(*shape, dtype="float32"):
    return tf.cast(RNG.standard_normal(shape), dtype)


def layer_norm(x, gamma, beta, epsilon=1e-6):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) / tf.sqrt(variance + epsilon) * gamma + beta


def gelu_grn(x, gamma, beta, visible=1.0, epsilon=1e-6):
    h = x * 0.5 * (1 + tf.math.erf(x / np.sqrt(2))) * visible
    norms = tf.sqrt(tf.reduce_sum(h**2, 1, keepdims=True) + 1e-24)
    return gamma * h * norms / (tf.reduce_mean(norms, -1, keepdims=True) + epsilon) + beta + h


def gradients(function, tensors):
    """Output and gradients of a function, whose elements have different weights."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = function(*tensors)
        weights = (2 + np.cos(np.arange(np.prod(y.shape)))).reshape(y.shape)
        total = tf.reduce_sum(tf.cast(y, "float64") * weights)
    return [y, *tape.gradient(total, tensors)]


def assert_as_in_float64(function, plain, tensors, tolerance):
    expected = gradients(plain, [tf.cast(t, "float64") for t in tensors])
    for one, two in zip(gradients(function, tensors), expected, strict=True):
        one, two = (np.asarray(tf.cast(value, "float64")) for value in (one, two))
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance * abs(two).max())


def test_layer_norm():
    """With an epsilon that matters, so that it is seen to be used."""
    tensors = [3 * normal(40, 24) + 2, normal(24), normal(24)]
    assert_as_in_float64(lambda *t: fused.layer_norm(*t, 2.0), lambda *t: layer_norm(*t, 2.0), tensors, 1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_gelu_grn(masked):
    tensors = [2 * normal(3, 30, 16), normal(16), normal(16)]
    visible = np.array(RNG.random((3, 30, 1)) < 0.4) if masked else np.ones((3, 30, 1))
    assert_as_in_float64(
        lambda *t: fused.gelu_grn(*t, 2.0, visible if masked else None),
        lambda *t: gelu_grn(*t, visible, 2.0),
        tensors,
        1e-5,
    )


def test_channels_without_response():
    x = np.zeros((2, 9, 4), "float32")
    found = gradients(lambda *t: fused.gelu_grn(*t, 1e-6), [tf.constant(x), normal(4), normal(4)])
    assert all(np.isfinite(value).all() for value in found)


def test_half_precision():
    wide = [normal(2, 30, 16, dtype="bfloat16"), normal(16), normal(16)]
    assert_as_in_float64(lambda *t: fused.gelu_grn(*t, 1e-6), gelu_grn, wide, 2e-2)
    rows = [normal(20, 16, dtype="bfloat16"), normal(16), normal(16)]
    assert_as_in_float64(lambda *t: fused.layer_norm(*t, 1e-6), layer_norm, rows, 2e-2)
    assert fused.gelu_grn(*wide, 1e-6).dtype == fused.layer_norm(*rows, 1e-6).dtype == "bfloat16"


def test_applies(monkeypatch):
    monkeypatch.setattr(fused, "WORTH_IT", 2**14)
    assert fused.applies((None, 32, 32, 16), "float32") == cpu.trains_fast("float32")
    assert fused.applies((tf.constant(2), 32, 32, 16), "float32") == cpu.trains_fast("float32")
    assert not fused.applies((None, None, 32, 16), "float32")
    assert not fused.applies((None, 31, 33, 16), "float32")
    monkeypatch.setattr(fused, "WORTH_IT_BATCH", 2**20)
    assert fused.applies((256, 16, 16, 16), "float32") == cpu.trains_fast("float32")
    assert not fused.applies((255, 16, 16, 16), "float32")
    assert not fused.applies((None, 16, 16, 16), "float32")
    assert not fused.applies((None, 32, 32, 16), "float16")


@pytest.fixture
def block():
    """A block, no weight or epsilon of which has a value that hides it."""
    made = keras_cnv2.ConvNeXtV2Block(8)
    made.build((None, 4, 6, 8))
    for variable in made.weights:
        variable.assign(RNG.standard_normal(variable.shape) * 0.3)
    made.norm.epsilon = made.grn.epsilon = 2.0
    return made


def trained(block, x, hidden):
    """Output and gradients of the block, in a graph of unknown batch size."""

    @tf.function(input_signature=[tf.TensorSpec((None, *x.shape[1:]))])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = block(x, hidden, training=True)
            total = tf.reduce_sum(tf.sin(y))
        return [y, *tape.gradient(total, [x, *block.trainable_variables])]

    return step(x)


def counted(function, calls):
    def call(*args, **kwargs):
        calls[function.__name__] = calls.get(function.__name__, 0) + 1
        return function(*args, **kwargs)

    return call


@pytest.mark.skipif(not cpu.trains_fast("float32"), reason="for CPUs with oneDNN")
@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_block(block, masked, remat, monkeypatch):
    x, hidden = normal(3, 4, 6, 8), np.array(RNG.random((3, 4, 6)) < 0.5) if masked else None
    expected = trained(block, x, hidden)
    calls = {}
    monkeypatch.setattr(fused, "WORTH_IT", 0)
    for module, name in ((fused, "gelu_grn"), (fused, "layer_norm"), (depthwise, "convolve")):
        monkeypatch.setattr(module, name, counted(getattr(module, name), calls))
    block.remat = remat
    for one, two in zip(trained(block, x, hidden), expected, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5 * np.abs(two).max())
    assert calls["convolve"] == calls["gelu_grn"] == calls["layer_norm"] >= 1 + remat  # when computed again, too
