import keras
import numpy as np
import pytest

import keras_cnv2


def submanifold(x, hidden, kernel, bias):
    """A sparse convolution by its definition: each visible position sums over its visible neighbours."""
    size = kernel.shape[0]
    out = np.zeros(x.shape)
    for n, i, j in zip(*np.where(hidden == 0)):
        total = np.float64(bias)
        for di in range(size):
            for dj in range(size):
                a, b = i + di - size // 2, j + dj - size // 2
                inside = 0 <= a < x.shape[1] and 0 <= b < x.shape[2]
                if inside and not hidden[n, a, b]:
                    total = total + x[n, a, b] * kernel[di, dj, :, 0]
        out[n, i, j] = total
    return out


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 7, 3)).astype("float32")
    hidden = (rng.uniform(size=(2, 9, 7)) < 0.5).astype("float32")
    layer = keras_cnv2.MaskedDepthwiseConv2D(5)
    layer.build(x.shape)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.get_weights()])
    return layer, x, hidden


@pytest.mark.backends
@pytest.mark.parametrize("dtype", ["float32", "bool", "int32"])
def test_is_a_submanifold_convolution(case, dtype):
    layer, x, hidden = case
    y = keras.ops.convert_to_numpy(layer(x, hidden=hidden.astype(dtype)))
    np.testing.assert_allclose(y, submanifold(x, hidden, *layer.get_weights()), rtol=1e-4, atol=1e-5)


@pytest.mark.backends
def test_without_a_mask_it_is_keras_own(case):
    layer, x, _ = case
    plain = keras.layers.DepthwiseConv2D(5, padding="same")
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), keras.ops.convert_to_numpy(plain(x)))


@pytest.mark.backends
def test_hidden_values_have_no_influence(case):
    layer, x, hidden = case
    other = np.where(hidden[..., None] == 1, 1e6, x).astype("float32")
    y, z = (keras.ops.convert_to_numpy(layer(v, hidden=hidden)) for v in (x, other))
    np.testing.assert_array_equal(y, z)
    assert (y[hidden == 1] == 0).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="fast gradients are for TensorFlow")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kernel_size": 1},
        {"kernel_size": 4},
        {"kernel_size": (3, 5)},
        {"dilation_rate": 2},
        {"depth_multiplier": 2},
        {"use_bias": False},
        {"activation": "tanh"},
    ],
)
def test_while_training_outputs_and_gradients_are_the_same(arguments, masked):
    """Whatever the arguments are: on a CPU, those of a block have fast gradients."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    layer = keras_cnv2.MaskedDepthwiseConv2D(**{"kernel_size": 3, **arguments})
    x = tf.constant(rng.standard_normal((2, 6, 5, 3)), "float32")
    layer.build(x.shape)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.get_weights()])
    hidden = (rng.uniform(size=(2, 6, 5)) < 0.5).astype("float32") if masked else None

    def outputs_and_gradients(training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, hidden=hidden, training=training)
            total = tf.reduce_sum(tf.sin(y))
        return [y, *tape.gradient(total, [x, *(variable.value for variable in layer.trainable_variables)])]

    for fast, plain in zip(outputs_and_gradients(True), outputs_and_gradients(False), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kwargs", [{"strides": 2}, {"padding": "valid"}, {"data_format": "channels_first"}])
def test_impossible_arguments(kwargs):
    with pytest.raises(ValueError, match=r"strides=1, padding=\"same\".*Received: strides="):
        keras_cnv2.MaskedDepthwiseConv2D(3, **kwargs)


@pytest.mark.parametrize("shape", [(2, 9, 8), (2, 9), (1, 9, 7)])
def test_mask_of_another_shape(case, shape):
    layer, x, _ = case
    with pytest.raises(ValueError, match=r"hidden must have the shape \(N, H, W\)"):
        layer(x, hidden=np.zeros(shape))


def test_mask_of_another_shape_in_a_functional_model():
    x = keras.Input((9, 7, 3))
    with pytest.raises(ValueError, match=r"hidden must have the shape \(N, H, W\).*Received: shape \(None, 9, 8\)"):
        keras_cnv2.MaskedDepthwiseConv2D(5)(x, keras.Input((9, 8)))
    assert keras_cnv2.MaskedDepthwiseConv2D(5)(x, keras.Input((9, 7))).shape == x.shape
