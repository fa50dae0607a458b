import inspect

import keras
import numpy as np
import pytest

import keras_cnv2
from tests import golden
from tests.golden import rule

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


def numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.backends
@pytest.mark.parametrize(("case", "shape"), [("224", (2, 224, 224)), ("rect", (1, 160, 288)), ("odd", (1, 200, 215))])
def test_stage_statistics(case, shape):
    reference = golden.load("dense_nano")
    backbone = keras_cnv2.ConvNeXtV2Backbone("nano", include_preprocessing=False)
    golden.set_weights(backbone, reference["seed"])
    stages = keras.Model(backbone.input, backbone.pyramid_outputs)(rule.image(int(reference["seed"]), *shape))
    tolerance = 1e-5 if keras.backend.backend() == "tensorflow" else 1e-4
    golden.assert_stages_match([*map(numpy, stages.values())], reference, case, tolerance)


@pytest.mark.backends
@pytest.mark.parametrize(("stem_stride", "first"), [(4, 2), (2, 1), (1, 0)])
def test_pyramid_levels_follow_the_strides(stem_stride, first):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=stem_stride, input_shape=(64, 96, 3))
    assert [*backbone.pyramid_outputs] == [*backbone.pyramid_level_inputs] == [f"P{first + i}" for i in range(4)]
    for level, tensor in backbone.pyramid_outputs.items():
        stride = 2 ** int(level[1:])
        assert tuple(tensor.shape[1:3]) == (64 // stride, 96 // stride)
        assert backbone.get_layer(backbone.pyramid_level_inputs[level]).output is tensor
    assert backbone.output is tensor


def test_size_gives_depths_and_dims():
    backbone = keras_cnv2.ConvNeXtV2Backbone("pico")
    assert (backbone.depths, backbone.dims) == ((2, 2, 6, 2), (64, 128, 256, 512))


def test_config_holds_every_argument():
    arguments = {*inspect.signature(keras_cnv2.ConvNeXtV2Backbone).parameters} - {"weights", "input_tensor"}
    given = {
        "include_preprocessing": False,
        "input_shape": (32, 48, 2),
        "stem_stride": 2,
        "drop_path_rate": 0.2,
        "dtype": "mixed_float16",
        "name": "mine",
    }
    assert arguments == {"size", "depths", "dims", *given}
    for architecture in (SMALL, {"size": "atto"}):
        config = keras_cnv2.ConvNeXtV2Backbone(**architecture, **given).get_config()
        assert keras.dtype_policies.get(config["dtype"]).name == "mixed_float16"
        assert {**config, "dtype": "mixed_float16"} == {**architecture, **given, "trainable": True}
        assert keras_cnv2.ConvNeXtV2Backbone.from_config(config).get_config() == config


@pytest.mark.backends
def test_keras_file(tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
    backbone.save(tmp_path / "backbone.keras")
    again = keras.saving.load_model(tmp_path / "backbone.keras")
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    np.testing.assert_array_equal(numpy(again(x)), numpy(backbone(x)))
    assert [*again.pyramid_outputs] == ["P2", "P3", "P4", "P5"]


@pytest.mark.backends
def test_carries_a_head_of_other_layers(tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
    model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    y = numpy(model(x))
    assert y.shape == (2, 3)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(keras.saving.load_model(tmp_path / "model.keras")(x)), y)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"size": "small"},
        {"size": 3},
        {"depths": (1, 1, 1, 1)},
        {"dims": (8, 16, 24, 32)},
        {"size": "atto", **SMALL},
    ],
)
def test_impossible_architecture(arguments):
    with pytest.raises(ValueError, match="Received: "):
        keras_cnv2.ConvNeXtV2Backbone(**arguments)
