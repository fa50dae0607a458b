import keras
import numpy as np
import pytest

import keras_cnv2

POLICIES = ["mixed_float16", "float16", "mixed_bfloat16", "bfloat16"]
if keras.backend.backend() != "jax":  # which has no float64 unless it is told to
    POLICIES.append("float64")


def reference(x, gamma, beta, epsilon=1e-6):
    """The paper's algorithm 1 in float64, image by image."""
    x = np.float64(x)
    out = np.empty_like(x)
    for i, image in enumerate(x):
        g = np.sqrt((image**2).sum(axis=tuple(range(image.ndim - 1))))
        out[i] = gamma * (image * (g / (g.mean() + epsilon))) + beta + image
    return out


def make(x, seed=0, **kwargs):
    layer = keras_cnv2.GRN(**kwargs)
    layer.build(x.shape)
    rng = np.random.default_rng(seed)
    gamma, beta = rng.standard_normal((2, x.shape[-1])).astype("float32")
    layer.set_weights([gamma, beta])
    return layer, gamma, beta


@pytest.mark.backends
def test_hand_computed():
    # Responses 5 and 1, mean 3: factors 5/3 and 1/3, plus the residual.
    x = np.array([[[[3.0, 1.0], [4.0, 0.0]]]], "float32")
    layer = keras_cnv2.GRN()
    layer.build(x.shape)
    layer.set_weights([np.array([1.0, 2.0]), np.array([0.0, 10.0])])
    expected = [[[[3 * 8 / 3, 1 * 5 / 3 + 10], [4 * 8 / 3, 10.0]]]]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, rtol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize("shape", [(2, 5, 7, 6), (3, 11, 6), (2, 3, 2, 2, 4)])
def test_formula_in_any_layout(shape):
    x = np.random.default_rng(1).standard_normal(shape).astype("float32")
    layer, gamma, beta = make(x)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), reference(x, gamma, beta), rtol=1e-5, atol=1e-6)


@pytest.mark.backends
def test_formula_with_another_epsilon():
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 6)).astype("float32")
    layer, gamma, beta = make(x, epsilon=2.0)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(x)), reference(x, gamma, beta, 2.0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.backends
def test_starts_as_the_identity():
    x = np.random.default_rng(2).standard_normal((2, 4, 4, 8)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras_cnv2.GRN()(x)), x)


@pytest.mark.backends
def test_image_alone_and_in_a_batch():
    x = np.random.default_rng(3).standard_normal((4, 6, 6, 8)).astype("float32") * np.array([1, 10, 100, 1000]).reshape(
        4, 1, 1, 1
    ).astype("float32")
    layer, _, _ = make(x)
    alone = np.concatenate([keras.ops.convert_to_numpy(layer(x[i : i + 1])) for i in range(4)])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), alone, rtol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize(("cls", "kwargs"), [(keras_cnv2.GRN, {}), (keras_cnv2.DropPath, {"rate": 1e-6})])
def test_masks_of_padding_pass_through(cls, kwargs):
    tokens = keras.Input((5,), dtype="int32")
    embedding = keras.layers.Embedding(7, 4, mask_zero=True)
    model = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(cls(**kwargs)(embedding(tokens))))
    x = np.array([[3, 5, 0, 0, 0]])
    means = keras.ops.mean(embedding(x[:, :2]), axis=1)  # both layers change nothing, or next to nothing
    y = model(x, training=True)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(y), keras.ops.convert_to_numpy(means), rtol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize("policy", POLICIES)
def test_every_dtype_policy_reduces_in_float32(policy):
    compute = keras.dtype_policies.get(policy).compute_dtype
    x = keras.ops.cast(1e3 * np.random.default_rng(4).uniform(0.5, 1, (1, 56, 56, 16)), compute)
    layer = keras_cnv2.GRN(dtype=policy)
    layer.build(x.shape)
    layer.set_weights([np.full(16, 0.5), np.ones(16)])
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == compute
    exact = reference(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), 0.5, 1.0)
    # Only the result is rounded: one unit in the last place, far less than a half-precision sum of 3136 squares.
    last_place = {"float16": 2**-11, "bfloat16": 2**-8, "float64": 1e-6}[compute]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(keras.ops.cast(y, "float32")), exact, rtol=1.01 * last_place)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="takes gradients with TensorFlow's tape")
class TestGradients:
    def gradients(self, x, **kwargs):
        import tensorflow as tf

        layer, _, _ = make(x, **kwargs)
        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.cast(layer(x), "float32"))
        return tape.gradient(loss, [x, *layer.trainable_variables])

    @pytest.mark.parametrize("x", [np.zeros((2, 4, 4, 8), "float32"), np.eye(8, dtype="float32")[None, None]])
    def test_finite_at_zero(self, x):
        assert all(np.isfinite(g).all() for g in self.gradients(x))

    def test_finite_for_large_float16(self):
        x = np.full((1, 56, 56, 8), 1e3, "float16")
        assert all(np.isfinite(g).all() for g in self.gradients(x, dtype="mixed_float16"))

    def test_against_finite_differences(self):
        x = np.random.default_rng(5).standard_normal((1, 3, 2, 4)).astype("float32")
        layer, gamma, beta = make(x)
        analytic = np.array(self.gradients(x)[0])
        for index in np.ndindex(x.shape):
            step = np.zeros(x.shape)
            step[index] = 1e-6
            numeric = (reference(x + step, gamma, beta).sum() - reference(x - step, gamma, beta).sum()) / 2e-6
            np.testing.assert_allclose(analytic[index], numeric, rtol=1e-3, atol=1e-4)

    def test_compiles_without_dynamic_shapes(self):
        import tensorflow as tf

        x = np.random.default_rng(6).standard_normal((2, 4, 4, 8)).astype("float32")
        layer, _, _ = make(x)
        np.testing.assert_allclose(tf.function(layer, jit_compile=True)(x), layer(x), rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 8), (2, 4, 4, None)])
def test_impossible_shapes(shape):
    with pytest.raises(ValueError, match=r"Received: input_shape=\(2"):
        keras_cnv2.GRN().build(shape)
