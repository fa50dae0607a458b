import inspect

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.optimizers.layer_decay import layers_above
from tests import golden
from tests.golden import rule
from tests.outputs import outputs

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


def numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.backends
def test_stage_statistics():
    reference = golden.load("dense_nano")
    backbone = keras_cnv2.ConvNeXtV2Backbone("nano", include_preprocessing=False)
    golden.set_weights(backbone, reference["seed"])
    model = keras.Model(backbone.input, [*backbone.pyramid_outputs.values()])
    tolerance = 1e-5 if keras.backend.backend() == "tensorflow" else 1e-4
    # The sides are no multiples of the stride. Classifiers have the other cases.
    stages = outputs(model, rule.image(int(reference["seed"]), 1, 200, 215))
    golden.assert_stages_match(stages, reference, "odd", tolerance)


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


@pytest.mark.backends
def test_pyramid_norms():
    plain = keras_cnv2.ConvNeXtV2Backbone(**SMALL)
    normed = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True)
    plain.set_weights([np.random.default_rng(0).normal(0, 0.2, w.shape) for w in plain.weights])
    for layer in plain.layers:
        normed.get_layer(layer.name).set_weights(layer.get_weights())
    assert [*normed.pyramid_level_inputs.values()] == [f"pyramid_norm_{stage}" for stage in range(4)]
    x = np.random.default_rng(0).uniform(0, 255, (2, 70, 64, 3))
    assert [*normed(keras.Input((70, 64, 3)))] == ["P2", "P3", "P4", "P5"]
    assert normed.pyramid_outputs == normed.output
    before, after = (outputs(keras.Model(m.input, [*m.pyramid_outputs.values()]), x) for m in (plain, normed))
    for features, found in zip(before, after, strict=True):
        variance = features.var(-1, keepdims=True)
        expected = (features - features.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-6)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.backends
def test_pyramid_norms_in_a_keras_file(tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True)
    for weight in backbone.trainable_variables[-8:]:
        weight.assign(np.random.default_rng(0).normal(0, 1, weight.shape))
    backbone.save(tmp_path / "backbone.keras")
    again = keras.saving.load_model(tmp_path / "backbone.keras")
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
    for level, features in again(x).items():
        np.testing.assert_array_equal(numpy(features), numpy(backbone(x)[level]))
    assert again.pyramid_level_inputs == backbone.pyramid_level_inputs


def test_pyramid_norms_are_no_part_of_pretraining():
    with pytest.raises(ValueError, match="without pyramid norms.*Received: "):
        keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True), image_size=64)


def test_pyramid_norms_of_a_folded_backbone():
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for weight in backbone.trainable_variables:
        weight.assign(rng.normal(weight.path.endswith("gamma"), 0.2, weight.shape))
    folded = keras_cnv2.fold(backbone)
    assert [*folded.pyramid_outputs] == [*folded.pyramid_level_inputs] == ["P2", "P3", "P4", "P5"]
    x = rng.uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    for level, features in folded(x).items():
        np.testing.assert_allclose(numpy(features), numpy(backbone(x)[level]), atol=1e-4)


def test_pyramid_norms_lie_above_the_stages():
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, pyramid_norms=True)
    paths = [v.path for v in backbone.trainable_variables]
    above = dict(zip(paths, layers_above(paths, "single")))
    assert {above[path] for path in paths if path.startswith("pyramid_norm")} == {0}
    assert max(above.values()) == sum(SMALL["depths"])


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
        "pyramid_norms": True,
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


@pytest.mark.backends
def test_levels_are_the_outputs_of_a_model_as_they_are():
    """Keras's own kind of dict, in which it keeps attributes, cannot be the output of a JAX model."""
    backbone = keras_cnv2.ConvNeXtV2Backbone(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), input_shape=(32, 32, 3))
    for model in (backbone, keras_cnv2.fold(backbone)):
        found = keras.Model(model.input, model.pyramid_outputs).predict(np.zeros((1, 32, 32, 3)), verbose=0)
        assert {level: features.shape for level, features in found.items()} == {
            level: (1, side, side, 4) for level, side in (("P2", 8), ("P3", 4), ("P4", 2), ("P5", 1))
        }
