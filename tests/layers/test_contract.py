"""What every layer owes Keras: configuration, shapes, dtypes, saving, training."""

import inspect

import keras
import numpy as np
import pytest

import keras_cnv2

LAYERS = {
    "GRN": (keras_cnv2.GRN, {"epsilon": 1e-5}, 2),
    "DropPath": (keras_cnv2.DropPath, {"rate": 0.3, "seed": 7}, 0),
    "MaskedDepthwiseConv2D": (keras_cnv2.MaskedDepthwiseConv2D, {"kernel_size": 3, "dilation_rate": 2}, 2),
    "ConvNeXtV2Block": (keras_cnv2.ConvNeXtV2Block, {"dim": 4, "drop_path_rate": 0.2}, 10),
}
SHAPE = (2, 6, 5, 4)
POLICIES = ["mixed_float16", "mixed_bfloat16"]
if keras.backend.backend() != "jax":  # which has no float64 unless it is told to
    POLICIES.append("float64")

pytestmark = [pytest.mark.backends, pytest.mark.parametrize(("cls", "kwargs", "weights"), LAYERS.values(), ids=LAYERS)]


def images(dtype="float32"):
    return keras.ops.cast(np.random.default_rng(0).standard_normal(SHAPE), dtype)


def test_config_holds_every_argument(cls, kwargs, weights):
    config = cls(**kwargs, name="x", dtype="mixed_bfloat16", trainable=False).get_config()
    arguments = [p.name for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    # These are there where they are not the default.
    arguments = [name for name in arguments if name not in ("remat", "dilation")]
    assert {*arguments, "name", "dtype", "trainable"} <= config.keys()
    again = cls.from_config(config)
    assert again.get_config() == config
    for name, value in kwargs.items():
        assert np.all(getattr(again, name) == np.array(value))


def test_shapes_weights_and_paths(cls, kwargs, weights):
    layer = cls(**kwargs)
    y = layer(images())
    assert tuple(y.shape) == layer.compute_output_shape(SHAPE) == SHAPE
    assert len(layer.weights) == len(layer.trainable_weights) == weights
    assert tuple(cls(**kwargs)(keras.KerasTensor((None, None, None, 4))).shape) == (None, None, None, 4)


@pytest.mark.parametrize("policy", POLICIES)
def test_dtype_policy(cls, kwargs, weights, policy):
    layer = cls(**kwargs, dtype=policy)
    y = layer(images())
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert {w.dtype for w in layer.weights} <= {layer.variable_dtype}


def _scaled(cls):
    """The method `call` of a class, times `factor`: with the arguments of the class, as Keras asks for."""
    if cls is keras_cnv2.GRN:
        return lambda self, x: self.factor * cls.call(self, x)
    if cls is keras_cnv2.DropPath:
        return lambda self, x, training=None: self.factor * cls.call(self, x, training=training)
    return lambda self, x, hidden=None, training=None: self.factor * cls.call(self, x, hidden, training=training)


def test_subclass_with_weights_of_its_own(cls, kwargs, weights, tmp_path):
    class Scaled(cls):
        def build(self, input_shape):
            super().build(input_shape)
            self.factor = self.add_weight(name="factor", shape=(), initializer="ones")

        call = _scaled(cls)

    model = keras.Sequential([keras.Input(SHAPE[1:]), Scaled(**kwargs)])
    assert len(model.weights) == weights + 1
    model.layers[0].factor.assign(3.0)
    model.save(tmp_path / "layer.keras")
    again = keras.saving.load_model(tmp_path / "layer.keras", custom_objects={"Scaled": Scaled})
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(images())) for m in (model, again)))


def test_saving(cls, kwargs, weights, tmp_path):
    model = keras.Sequential([keras.Input(SHAPE[1:]), cls(**kwargs)])
    model.save(tmp_path / "layer.keras")
    again = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(m(images())) for m in (model, again)))


def test_one_training_step(cls, kwargs, weights):
    model = keras.Sequential([keras.Input(SHAPE[1:]), cls(**kwargs), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    before = [w.copy() for w in model.get_weights()]
    x = np.repeat(keras.ops.convert_to_numpy(images()), 16, axis=0)  # enough samples for some to keep their path
    assert np.isfinite(model.train_on_batch(x, np.ones((*x.shape[:3], 1))))
    changed = [(a != b).any() for a, b in zip(before, model.get_weights())]
    assert len(changed) == weights + 2
    assert all(changed)
