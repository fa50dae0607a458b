"""Encoders that start from the files of models around one."""

import json

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_cnv2
from keras_cnv2.checkpoints.described import DESCRIPTION, description
from keras_cnv2.checkpoints.metadata import KEY
from keras_cnv2.detection import retinanet
from keras_cnv2.errors import CheckpointError
from keras_cnv2.segmentation import UPerNet

ARCHITECTURE = {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)}


def encoder(**kwargs):
    made = keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, input_shape=(64, 64, 3), **kwargs)
    for weight in made.weights:
        weight.assign(keras.random.normal(weight.shape))
    return made


def segmenter(backbone):
    return UPerNet(backbone, 3, width=8, auxiliary_width=8)


def detector(backbone):
    return retinanet(backbone, 2, width=8, convs=1)


def own_head(backbone):
    """Its layers are called like a classifier's of ours, and are not."""
    x = keras.layers.GlobalAveragePooling2D()(backbone.output)
    x = keras.layers.Dense(5, name="extra")(keras.layers.LayerNormalization(name="norm")(x))
    return keras.Model(backbone.input, keras.layers.Dense(2, name="head")(x))


def saved(model, folder):
    model.save(folder / "model.keras")
    return folder / "model.keras"


def checkpoint(model, folder):
    """As training writes it."""
    tensors = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    content = description(keras.saving.serialize_keras_object(model), {path: path for path in tensors})
    save_file(tensors, folder / "model.safetensors", {KEY: json.dumps({DESCRIPTION: content})})
    return folder / "model.safetensors"


@pytest.mark.parametrize("write", [saved, checkpoint])
@pytest.mark.parametrize("around", [segmenter, detector, own_head])
def test_encoder(around, write, tmp_path, caplog):
    backbone = encoder(pyramid_norms=around is not own_head)
    path = write(around(backbone), tmp_path)
    caplog.set_level("INFO", logger="keras_cnv2")
    loaded = keras_cnv2.ConvNeXtV2Backbone(
        **ARCHITECTURE, input_shape=(64, 64, 3), pyramid_norms=around is not own_head, weights=path
    )
    absent = {"pyramid_norm_0"} if around is detector else set()  # a detector does not take the finest level
    for one, two in zip(loaded.weights, backbone.weights, strict=True):
        assert np.array_equal(one, two) == (one.path.split("/")[0] not in absent)
    assert ("keeps its initial values: pyramid_norm_0" in caplog.text) == bool(absent)
    (line,) = [line for line in caplog.messages if "in the checkpoint, left out:" in line]
    assert {segmenter: "classifier", detector: "class", own_head: "extra, head, norm"}[around] in line


def test_classifier_keeps_its_own_head(tmp_path, caplog):
    backbone = encoder()
    path = saved(own_head(backbone), tmp_path)
    classifier = keras_cnv2.ConvNeXtV2(**ARCHITECTURE, classes=2, input_shape=(64, 64, 3), weights=path)
    named = {weight.path: keras.ops.convert_to_numpy(weight) for weight in classifier.weights}
    assert "keeps its initial values: head, norm" in caplog.text
    np.testing.assert_array_equal(named["norm/gamma"], np.ones(8))
    for weight in backbone.weights:
        np.testing.assert_array_equal(named[weight.path], weight)


@pytest.mark.parametrize("names", [("head",), ("proj", "norm", "pred", "head")])
def test_layers_around_it_that_are_called_like_ours(names, tmp_path):
    """All of them, so that no name is left over."""
    backbone = encoder()
    layers = [keras.layers.Dense(6, name=name) for name in names]
    path = saved(keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), *layers]), tmp_path)
    classifier = keras_cnv2.ConvNeXtV2(**ARCHITECTURE, classes=6, input_shape=(64, 64, 3), weights=path)
    fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, input_shape=(64, 64, 3)), 64)
    keras_cnv2.load_checkpoint(fcmae, path)
    for model in (classifier, fcmae.backbone):
        named = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
        for weight in backbone.weights:
            np.testing.assert_array_equal(named[weight.path], weight)


def test_layers_around_it_that_are_called_like_the_encoder_s(tmp_path):
    """The weights of one must not get into the other: in the file, nothing tells them apart."""
    x = keras.Input((64, 64, 3))
    path = saved(keras.Model(x, keras.layers.LayerNormalization(name="stem_norm")(encoder()(x))), tmp_path)
    with pytest.raises(CheckpointError, match=r"called like the encoder's; nothing was loaded.*Received: stem_norm/0"):
        keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, input_shape=(64, 64, 3), weights=path)


def test_segmenter_for_pre_training(tmp_path):
    backbone = encoder(pyramid_norms=True)
    path = saved(segmenter(backbone), tmp_path)
    fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, input_shape=(64, 64, 3)), 64)
    keras_cnv2.load_checkpoint(fcmae, path)
    np.testing.assert_array_equal(fcmae.backbone.get_weights()[0], backbone.get_weights()[0])


def test_several_encoders(tmp_path):
    towers = [encoder(name=name) for name in ("one", "two")]
    inputs = [keras.Input((64, 64, 3)) for _ in towers]
    pooled = [keras.layers.GlobalAveragePooling2D()(tower(x)) for tower, x in zip(towers, inputs)]
    path = saved(keras.Model(inputs, keras.layers.Dense(1, name="fuse")(keras.ops.concatenate(pooled))), tmp_path)
    with pytest.raises(CheckpointError, match=r"several encoders.*Received: downsample_1_conv/0 \("):
        keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, weights=path)


def test_two_encoders_alone(tmp_path):
    """Nothing around them, whose names would be left over."""
    towers = [encoder(name=name) for name in ("one", "two")]
    x = keras.Input((64, 64, 3))
    path = saved(keras.Model(x, [tower(x) for tower in towers]), tmp_path)
    with pytest.raises(CheckpointError, match="several encoders"):
        keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, weights=path)


def test_names_without_a_configuration_stay_strict(tmp_path):
    segmenter(encoder()).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(CheckpointError, match="left over"):
        keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE, weights=tmp_path / "a.weights.h5")
