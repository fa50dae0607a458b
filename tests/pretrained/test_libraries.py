"""Folders of ours in the PyTorch implementations of transformers and timm."""

import json

import numpy as np
import pytest
from PIL import Image

import keras_cnv2
from tests.export.small import NAMES, backbone, classifier

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")

STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.5, 0.125)}


@pytest.fixture(scope="module")
def logits():
    """The logits of a classifier, of images in 0..255."""
    return classifier(image_size=64, classifier_activation=None, **STATISTICS)


def images():
    return np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3)).astype("float32")


def pixel_values():
    mean, std = (np.float32(values) * 255 for values in STATISTICS.values())
    return torch.from_numpy(((images() - mean) / std).transpose(0, 3, 1, 2))


@pytest.fixture
def picture(tmp_path):
    """A function that saves a square picture of a side, not to be resized: libraries round in their own ways."""

    def save(side):
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / "it.png")
        return str(tmp_path / "it.png")

    return save


class TestTransformers:
    def test_logits(self, logits, tmp_path):
        transformers = pytest.importorskip("transformers")
        keras_cnv2.save_pretrained(logits, tmp_path / "it")
        theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "it")
        assert theirs.config.id2label == dict(enumerate(NAMES))
        with torch.no_grad():
            received = theirs.eval()(pixel_values()).logits.numpy()
        np.testing.assert_allclose(received, logits(images()), atol=1e-4)

    @pytest.mark.parametrize(
        ("arguments", "side"),
        [
            ({"resize": "crop"}, 73),
            ({"resize": "squash"}, 64),
            ({"classifier_activation": "sigmoid"}, 73),
            ({"image_size": 384, "resize": "crop"}, 438),
        ],
    )
    def test_pipeline(self, arguments, side, picture, tmp_path):
        transformers = pytest.importorskip("transformers")
        model = classifier(**{"depths": (1, 1, 1, 1), "image_size": 64, **STATISTICS, **arguments})
        keras_cnv2.save_pretrained(model, tmp_path / "it")
        classify = transformers.pipeline("image-classification", str(tmp_path / "it"))
        received = {answer["label"]: answer["score"] for answer in classify(picture(side), top_k=5)}
        image = keras_cnv2.load_image(picture(side), model.image_size, model.resize)
        expected = dict(zip(NAMES, np.asarray(model(image[None]))[0].tolist()))
        assert received == pytest.approx(expected, abs=1e-4)

    def test_encoders(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        pooled = classifier(include_top=False, pooling="avg", class_names=None, **STATISTICS)
        normed = backbone(pyramid_norms=True, **STATISTICS)
        for number, model in enumerate((backbone(**STATISTICS), pooled, normed)):
            keras_cnv2.save_pretrained(model, tmp_path / str(number))
        with torch.no_grad():
            last, features = (
                transformers.AutoModel.from_pretrained(tmp_path / str(number)).eval()(pixel_values())
                for number in range(2)
            )
            maps = transformers.ConvNextV2Backbone.from_pretrained(tmp_path / "2").eval()(pixel_values()).feature_maps
        expected = np.asarray(backbone(**STATISTICS)(images()))
        received = last.last_hidden_state.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(received, expected, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_allclose(features.pooler_output.numpy(), pooled(images()), atol=1e-4)
        for received, expected in zip(maps, normed(images()).values(), strict=True):
            np.testing.assert_allclose(received.numpy().transpose(0, 2, 3, 1), expected, atol=1e-4)


class TestTimm:
    """Without its package, which needs a torchvision that fits PyTorch, these are skipped."""

    def test_logits(self, logits, tmp_path):
        timm = pytest.importorskip("timm")
        keras_cnv2.save_pretrained(logits, tmp_path / "it", "timm")
        config = json.loads((tmp_path / "it" / "config.json").read_text())
        architecture, arguments = config["architecture"], {**config["model_args"], "num_classes": 5}
        weights = str(tmp_path / "it" / "model.safetensors")
        overlay = {**config["pretrained_cfg"], "file": weights}
        for theirs in (
            timm.create_model(f"local-dir:{tmp_path / 'it'}", pretrained=True),
            timm.create_model(architecture, checkpoint_path=weights, **arguments),
            timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay, **arguments),
        ):
            with torch.no_grad():
                np.testing.assert_allclose(theirs.eval()(pixel_values()), logits(images()), atol=1e-4)

    @pytest.mark.parametrize("resize", ["crop", "squash"])
    def test_preprocessing(self, resize, picture, tmp_path):
        timm = pytest.importorskip("timm")
        model = classifier(depths=(1, 1, 1, 1), image_size=64, resize=resize, **STATISTICS)
        keras_cnv2.save_pretrained(model, tmp_path / "it", "timm")
        theirs = timm.create_model(f"local-dir:{tmp_path / 'it'}", pretrained=True).eval()
        assert theirs.pretrained_cfg["label_names"] == [*NAMES]
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
        path = picture(73 if resize == "crop" else 64)
        with torch.no_grad():
            received = torch.softmax(theirs(transform(Image.open(path).convert("RGB"))[None]), -1)
        image = keras_cnv2.load_image(path, 64, resize)
        np.testing.assert_allclose(received, model(image[None]), atol=1e-4)

    def test_encoders_and_a_published_size(self, tmp_path):
        timm = pytest.importorskip("timm")
        pooled = classifier(include_top=False, pooling="max", class_names=None, **STATISTICS)
        encoder = keras_cnv2.ConvNeXtV2Backbone("atto", **STATISTICS)
        for name, model in (("encoder", encoder), ("pooled", pooled)):
            keras_cnv2.save_pretrained(model, tmp_path / name, "timm")
        with torch.no_grad():
            theirs = timm.create_model(f"local-dir:{tmp_path / 'pooled'}", pretrained=True).eval()
            np.testing.assert_allclose(theirs(pixel_values()), pooled(images()), atol=1e-4)
            theirs = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True).eval()
            received = theirs.forward_features(pixel_values()).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(received, encoder(images()), atol=1e-4)
