"""What is set on the layers within a block, wherever the block is."""

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.keras_internals import all_layers, direct_layers

SHAPE = (2, 6, 5, 4)
pytestmark = [pytest.mark.backends, pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")]


@keras.saving.register_keras_serializable(package="tests")
class Mine(keras.Model):
    """A model of a user's own that holds blocks."""

    def __init__(self, blocks=None, **kwargs):
        super().__init__(**kwargs)
        self.blocks = blocks or [keras_cnv2.ConvNeXtV2Block(4, name=f"block_{number}") for number in range(2)]
        self.head = keras.layers.Dense(1)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def get_config(self):
        return {**super().get_config(), "blocks": [*map(keras.saving.serialize_keras_object, self.blocks)]}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "blocks": [*map(keras.saving.deserialize_keras_object, config["blocks"])]})


def images():
    return np.random.default_rng(0).standard_normal(SHAPE).astype("float32")


def sequential():
    blocks = [keras_cnv2.ConvNeXtV2Block(4, name=f"block_{number}") for number in range(2)]
    return keras.Sequential([keras.Input(SHAPE[1:]), *blocks, keras.layers.Dense(1)])


def functional():
    inputs = keras.Input(SHAPE[1:])
    x = keras_cnv2.ConvNeXtV2Block(4, name="block_0")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(keras_cnv2.ConvNeXtV2Block(4, name="block_1")(x)))


def own():
    model = Mine()
    model(images())
    return model


def changed(model):
    """The model, with all that can be set on layers within its blocks; the one block is frozen, the other is not."""
    one, two = (layer for layer in all_layers(model) if isinstance(layer, keras_cnv2.ConvNeXtV2Block))
    one.trainable = False
    one.grn.trainable = True
    one.pwconv2.quantize("int8")
    two.norm.trainable = False
    two.remat = True
    two.pwconv1.enable_lora(2, lora_alpha=6)
    two.pwconv1.lora_kernel_b.assign(np.ones(two.pwconv1.lora_kernel_b.shape))
    return model


def settings(model):
    names = ("trainable", "quantization_mode", "remat", "lora_enabled", "lora_rank", "lora_alpha")
    blocks = [layer for layer in all_layers(model) if isinstance(layer, keras_cnv2.ConvNeXtV2Block)]
    return [[getattr(part, name, None) for name in names] for block in blocks for part in all_layers(block)]


@pytest.mark.parametrize("make", [sequential, functional, own])
def test_saved(make, tmp_path):
    model = changed(make())
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    for number, variable in enumerate(model.optimizer.variables):
        variable.assign(np.full(variable.shape, number))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert settings(again) == settings(model)
    np.testing.assert_allclose(*(keras.ops.convert_to_numpy(each(images())) for each in (model, again)), atol=1e-6)
    assert len(again.trainable_variables) == len(model.trainable_variables)
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    for one, two in zip(model.optimizer.variables, again.optimizer.variables):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, two)))


@pytest.mark.parametrize("make", [sequential, functional])
def test_cloned(make):
    model = changed(make())
    assert settings(keras.models.clone_model(model)) == settings(model)


def test_before_it_is_built():
    """The configuration is the same, and what has been set since."""
    model = changed(functional())
    config = model.get_layer("block_1").get_config()
    block = keras_cnv2.ConvNeXtV2Block.from_config(config)
    assert block.get_config() == config
    block.norm.trainable = True
    block.pwconv2.trainable = False
    block = keras_cnv2.ConvNeXtV2Block.from_config(block.get_config())
    block.build(SHAPE)
    assert [part.name for part in direct_layers(block) if not part.trainable] == ["pwconv2"]
    assert block.pwconv1.lora_enabled
    assert block.remat


def test_policy_of_a_quantized_layer():
    """It may compute in another dtype than its block."""
    block = keras_cnv2.ConvNeXtV2Block(4)
    block.build(SHAPE)
    block.pwconv2.quantize("int8")
    block.pwconv2.dtype_policy = keras.dtype_policies.QuantizedDTypePolicy("int8", "mixed_bfloat16")
    again = keras_cnv2.ConvNeXtV2Block.from_config(block.get_config())
    again.build(SHAPE)
    assert again.pwconv2.dtype_policy.name == "int8_from_mixed_bfloat16"


def test_nothing_set():
    assert "settings" not in keras_cnv2.ConvNeXtV2Block(4, trainable=False).get_config()


def test_block_under_a_map_of_policies(tmp_path):
    """Keras's own dense layers compute with a map, and fail to be saved."""
    int8 = keras.dtype_policies.QuantizedDTypePolicy("int8", "float32")
    policies = keras.dtype_policies.DTypePolicyMap("float32", {"sequential.*/block/pwconv1": int8})
    block = keras_cnv2.ConvNeXtV2Block(4, dtype=policies, name="block")
    model = keras.Sequential([keras.Input(SHAPE[1:]), block])
    assert [part.name for part in direct_layers(block) if part.quantization_mode] == ["pwconv1"]
    block.pwconv1.kernel_scale.assign(np.full(16, 9.0))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert settings(again) == settings(model)
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(each(images())) for each in (model, again)))
