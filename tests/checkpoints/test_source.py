"""The argument `weights`: which row it names, and what the model has of it."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.checkpoints.hub import Download
from keras_cnv2.checkpoints.registry import CHECKPOINTS
from keras_cnv2.sizes import SIZES
from tests.checkpoints.samples import FILES, SMALL, classifier, snapshot, unchanged

pytestmark = pytest.mark.lowest


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """In place of the hub: files with random weights. Has the rows that were asked for."""
    asked = []

    def download(row):
        asked.append(row)
        path = tmp_path / f"{row.name}.safetensors"
        size = SIZES[row.size]
        model = keras_cnv2.ConvNeXtV2(size.depths, size.dims, include_top=row.has_head)
        keras_cnv2.save_checkpoint(model, path, "timm")
        return Download(path, "a" * 40, "0" * 64)

    monkeypatch.setattr("keras_cnv2.checkpoints.source.download", download)
    return asked


@pytest.fixture
def nano(monkeypatch):
    """Makes a classifier that passes for a nano, which is the smallest size with weights for 384 x 384."""
    small = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10)}
    monkeypatch.setitem(SIZES, "nano", dataclasses.replace(SIZES["nano"], **small))
    return lambda **arguments: keras_cnv2.ConvNeXtV2(**small, **arguments)


def test_backbone_and_fcmae(downloads, tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone("atto", weights="fcmae")
    assert [row.name for row in downloads] == ["convnextv2_atto.fcmae"]
    expected = keras_cnv2.ConvNeXtV2Backbone("atto")
    keras_cnv2.load_checkpoint(expected, tmp_path / "convnextv2_atto.fcmae.safetensors")
    assert unchanged(backbone, snapshot(expected))
    fcmae = keras_cnv2.FCMAE(backbone, image_size=64)
    assert fcmae.backbone is backbone


def test_encoder_for_a_classifier(downloads, caplog):
    model = keras_cnv2.ConvNeXtV2Atto(weights="fcmae", classes=5)
    assert caplog.messages == ["convnextv2_atto: not taken from the checkpoint, keeps its initial values: head, norm"]
    assert (model.class_names, model.image_size, model.resize) == (None, 224, "crop")


def test_imagenet(downloads):
    model = keras_cnv2.ConvNeXtV2Atto(weights="imagenet")
    assert downloads == [row for row in CHECKPOINTS if row.name == "convnextv2_atto.fcmae_ft_in1k"]
    assert model.class_names[:2] == ("tench", "goldfish")
    again = keras_cnv2.ConvNeXtV2.from_config(model.get_config())  # without another download
    assert len(downloads) == 1
    assert again.class_names == model.class_names


def test_features_of_a_classifier(downloads, nano):
    model = nano(weights="fcmae_ft_in22k_in1k_384", include_top=False, pooling="avg")
    assert model(np.zeros((1, 64, 64, 3))).shape == (1, 10)
    assert (model.class_names, model.image_size, model.resize) == (None, 384, "squash")


def test_fixed_input_keeps_its_size(downloads, nano):
    model = nano(weights="fcmae_ft_in22k_in1k_384", input_shape=(256, 256, 3))
    assert (model.image_size, model.resize) == (256, None)  # to squash belongs to 384
    model = nano(weights="fcmae_ft_in22k_in1k_384", input_shape=(384, 384, 3))
    assert (model.image_size, model.resize) == (384, "squash")


def test_nothing_is_downloaded_for_a_model_without_published_weights(downloads):
    with pytest.raises(keras_cnv2.CheckpointError, match="Published weights are for the sizes"):
        keras_cnv2.ConvNeXtV2(**SMALL, weights="imagenet")
    assert downloads == []


def test_wrong_arguments_are_told_before_the_download(downloads):
    with pytest.raises(ValueError, match="pooling must be"):
        keras_cnv2.ConvNeXtV2Atto(weights="imagenet", pooling="sum")
    assert downloads == []


@pytest.mark.parametrize("shape", [(64, 96, 3), (None, 64, 3), (96, None, 3), (64, 64, 3), (None, None, 3)])
def test_models_with_metadata_survive_being_saved(shape, tmp_path):
    keras_cnv2.save_checkpoint(classifier(image_size=96, resize="squash"), tmp_path / "m.safetensors")
    model = classifier(weights=tmp_path / "m.safetensors", input_shape=shape)
    assert model.image_size == {(64, 64, 3): 64, (None, None, 3): 96}.get(shape)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.get_config() == model.get_config()
    assert unchanged(again, snapshot(model))


class TestImageSize:
    @pytest.mark.parametrize("image_size", [0, -1, 31, 4097, 96.5, "224"])
    def test_impossible(self, image_size):
        with pytest.raises(ValueError, match=f"int from 32 to 4096. Received: image_size={image_size!r}"):
            keras_cnv2.ConvNeXtV2(**SMALL, image_size=image_size)

    @pytest.mark.parametrize("shape", [(64, 64, 3), (96, 64, 3), (None, 64, 3)])
    def test_other_than_the_input(self, shape):
        with pytest.raises(
            ValueError, match="image_size must be left out or equal the sides of input_shape.*Received: image_size=96"
        ):
            keras_cnv2.ConvNeXtV2(**SMALL, input_shape=shape, image_size=96)

    def test_of_the_input(self):
        assert keras_cnv2.ConvNeXtV2(**SMALL, input_shape=(64, 64, 3)).image_size == 64
        assert keras_cnv2.ConvNeXtV2(**SMALL, input_shape=(64, 96, 3)).image_size is None
        assert keras_cnv2.ConvNeXtV2(**SMALL, input_shape=(96, None, 3), image_size=96).image_size == 96

    def test_resize(self):
        with pytest.raises(ValueError, match="Received: resize='pad'"):
            keras_cnv2.ConvNeXtV2(**SMALL, resize="pad")


def test_own_file_under_a_published_name(tmp_path):
    """The name tells the image size; its ImageNet names are not those of ten classes."""
    path = tmp_path / "convnextv2_tiny.fcmae_ft_in22k_in1k_384.safetensors"
    path.write_bytes((FILES / "timm_linear.safetensors").read_bytes())
    model = classifier(weights=path)
    assert (model.class_names, model.image_size) == (None, 384)


@pytest.mark.parametrize("names", [[1, 2], "ab", ["a"], ["a", None]])
def test_class_names_are_strings(names):
    with pytest.raises(ValueError, match="class_names must be a list of 2 strings"):
        classifier(classes=2, class_names=names)
