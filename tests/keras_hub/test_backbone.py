import json
import sys

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.optional_packages import import_keras_hub
from tests.keras_hub.small import ARCHITECTURE, ConvNeXtV2Backbone, backbone, own_model
from tests.outputs import outputs
from tests.segmentation.small import with_values

pytestmark = pytest.mark.backends


def images(count=2, size=32):
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype("float32")


def test_weights_of_a_classifier():
    """The feature map of every stage is the same, to the last bit."""
    model = own_model(include_preprocessing=False)
    made = ConvNeXtV2Backbone.from_model(model)
    x = images()
    stages = [model.get_layer(f"stages_{stage}_0").output for stage in range(4)]
    expected = outputs(keras.Model(model.input, stages), x)
    found = outputs(keras.Model(made.input, made.pyramid_outputs), x)
    assert [*found] == ["P2", "P3", "P4", "P5"]
    for level, features in zip(found.values(), expected):
        np.testing.assert_array_equal(level, features)
    np.testing.assert_array_equal(outputs(made, x), expected[-1])


def test_weights_of_a_backbone_with_norms():
    model = with_values(
        keras_cnv2.ConvNeXtV2Backbone(
            **ARCHITECTURE, stem_stride=2, output_stride=8, include_preprocessing=False, pyramid_norms=True
        )
    )
    made = ConvNeXtV2Backbone.from_model(model, image_shape=(32, 32, 3))
    assert made.image_shape == (32, 32, 3)
    found, expected = outputs(made, images()), outputs(model, images())
    assert [*found] == [*made.pyramid_outputs] == ["P1", "P2", "P3", "P4"]
    assert found["P4"].shape == (2, 4, 4, 10)
    for level in found:
        np.testing.assert_array_equal(found[level], expected[level])


def test_configuration_has_every_argument():
    given = {
        **ARCHITECTURE,
        "image_shape": (64, None, 1),
        "stem_stride": 2,
        "drop_path_rate": 0.25,
        "pyramid_norms": True,
        "output_stride": 8,
        "dtype": "mixed_bfloat16",
        "name": "mine",
        "trainable": False,
    }
    config = ConvNeXtV2Backbone(**given).get_config()
    again = ConvNeXtV2Backbone.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert {**config, "dtype": config["dtype"]["config"]["name"]} == given
    assert not again.trainable_variables


def test_checkpoints_of_all_dialects(tmp_path):
    made = with_values(backbone())
    keras_cnv2.save_checkpoint(made, tmp_path / "mine.safetensors", naming="timm")
    other = backbone()
    keras_cnv2.load_checkpoint(other, tmp_path / "mine.safetensors")
    for ours, theirs in zip(made.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_lora_changes_the_dense_layers():
    made = backbone()
    made.enable_lora(2)
    changed = [v.path.split("/")[-2] for v in made.trainable_variables if "lora" in v.path]
    assert (len(changed), {*changed}) == (16, {"pwconv1", "pwconv2"})


@pytest.mark.parametrize(
    "arguments",
    [
        {"depths": (1, 1, 1)},
        {"dims": (4, 6, 8, 0)},
        {"stem_stride": 3},
        {"output_stride": 32},
        {"drop_path_rate": 1.0},
        {"image_shape": (32, 3)},
        {"dtype": "int8_from_float32"},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}.*Received: "):
        backbone(**arguments)


def test_images_too_small():
    with pytest.raises(ValueError, match="at least 32 pixels.*Received: "):
        backbone(image_shape=(None, None, 3))(images(size=31))


def test_other_models():
    with pytest.raises(ValueError, match=r"takes a keras_cnv2\.ConvNeXtV2 or .*Received: "):
        ConvNeXtV2Backbone.from_model(keras.Sequential())


def test_models_without_all_levels():
    model = keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, out_levels=["P3"])
    with pytest.raises(ValueError, match="without out_levels.*Received: "):
        ConvNeXtV2Backbone.from_model(model)


def test_missing_keras_hub_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r'pip install "keras_cnv2\[keras-hub\]" \(.*keras_hub'):
        import_keras_hub()
