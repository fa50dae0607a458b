"""Mean and deviation of a model's own, in place of ImageNet's, wherever a model normalises images."""

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.metadata import metadata_of
from keras_cnv2.export.metadata import normalization_of
from keras_cnv2.models.pictures import to_input
from keras_cnv2.restore import restore_model

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.125)
SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 8)}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")


def small(**arguments):
    return keras_cnv2.ConvNeXtV2(**SMALL, classes=3, mean=MEAN, std=STD, **arguments)


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def expected(model):
    """What the model computes, from images that NumPy normalised."""
    bare = small(include_preprocessing=False)
    bare.set_weights(model.get_weights())
    return np.asarray(bare((IMAGES / 255 - MEAN) / STD))


def same(outputs, expected):
    np.testing.assert_allclose(np.asarray(outputs), expected, atol=1e-5)


def test_classifier(model, expected):
    same(model(IMAGES), expected)
    again = keras_cnv2.ConvNeXtV2.from_config(model.get_config())
    assert (again.mean, again.std) == (MEAN, STD)
    again.set_weights(model.get_weights())
    same(again(IMAGES), expected)


@pytest.mark.parametrize("kind", ["model.keras", "model.safetensors"])
def test_files(kind, model, expected, tmp_path):
    model.save(path) if (path := tmp_path / kind).suffix == ".keras" else keras_cnv2.save_checkpoint(model, path)
    same(restore_model(path)(IMAGES), expected)
    same(keras_cnv2.ConvNeXtV2(**SMALL, classes=3, weights=path)(IMAGES), expected)
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, weights=path)
    assert (backbone.mean, backbone.std) == (MEAN, STD)
    assert keras_cnv2.ConvNeXtV2Backbone(**SMALL, weights=path, mean=(0.5,) * 3).mean == (0.5,) * 3  # the user's own


def test_pooling_of_features(tmp_path):
    features = keras_cnv2.ConvNeXtV2(**SMALL, include_top=False, pooling="max")
    keras_cnv2.save_checkpoint(features, tmp_path / "model.safetensors")
    same(restore_model(tmp_path / "model.safetensors")(IMAGES), np.asarray(features(IMAGES)))


def test_weights_that_saw_other_images(model, tmp_path, caplog):
    keras_cnv2.save_checkpoint(model, tmp_path / "model.safetensors")
    keras_cnv2.load_checkpoint(keras_cnv2.ConvNeXtV2(**SMALL, classes=3), tmp_path / "model.safetensors")
    assert "were trained on images with mean (0.5, 0.4, 0.3)" in caplog.text


def test_fold(model, expected):
    folded = keras_cnv2.fold(model)
    same(folded(IMAGES), expected)
    assert metadata_of(folded)["mean"] == MEAN


def test_normalised_images(model, expected):
    bare = small(include_preprocessing=False)
    bare.set_weights(model.get_weights())
    same(bare(to_input(bare, IMAGES)), expected)
    mean, std = normalization_of(bare, 3)
    same((IMAGES - mean) / std, to_input(bare, IMAGES))


def test_fcmae():
    """The target of the loss: a prediction of the normalised pixels has no error."""
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, mean=MEAN, std=STD, stem_stride=2)
    fcmae = keras_cnv2.FCMAE(backbone, image_size=32, decoder_dim=8, norm_pix_loss=False)
    patches = ((IMAGES / 255 - MEAN) / STD).reshape(2, 2, 16, 2, 16, 3).swapaxes(2, 3).reshape(2, 4, -1)
    outputs = {"prediction": patches.astype("float32"), "hidden": np.ones((2, 2, 2), "float32")}
    assert float(fcmae.reconstruction_loss(IMAGES, outputs)) < 1e-9
    same(fcmae.paint(IMAGES, outputs) / 255, IMAGES / 255)


def test_a_model_of_the_users_own():
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, mean=MEAN, std=STD)
    model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    assert (metadata_of(model)["mean"], metadata_of(model)["std"]) == (MEAN, STD)
    within = keras.Model(backbone.input, keras.layers.GlobalAveragePooling2D()(backbone.output))
    assert metadata_of(within)["std"] == STD


def test_wrong_number():
    with pytest.raises(ValueError, match=r"mean must be .* 3 for each .*Received: mean=\(0.5,\)"):
        keras_cnv2.ConvNeXtV2(**SMALL, mean=(0.5,))
