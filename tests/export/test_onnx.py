import json
import sys

import keras
import numpy as np
import onnxruntime
import pytest

import keras_cnv2
from keras_cnv2.export import onnx
from tests import golden
from tests.export.small import ARCHITECTURE, NAMES, backbone, classifier, shared_classifier
from tests.golden import rule


def images(count=3, height=80, width=64):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype("float32")


def test_classifier(tmp_path):
    model = classifier(depths=(1, 1, 1, 1), image_size=64, resize="crop")
    keras_cnv2.export_onnx(model, tmp_path / "it.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    (received,) = session.run(["probabilities"], {"images": images()})
    np.testing.assert_allclose(received, model(images()), atol=1e-5)
    assert session.get_inputs()[0].shape == ["N", "H", "W", 3]
    assert session.get_outputs()[0].shape == ["N", 5]
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["keras_cnv2"])
    assert metadata == {
        "class_names": [*NAMES],
        "image_size": 64,
        "resize": "crop",
        "channels": 3,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
    }
    assert [*tmp_path.iterdir()] == [tmp_path / "it.onnx"]


def test_backbone(tmp_path):
    model = backbone(input_shape=(64, 64, 3), include_preprocessing=False)
    keras_cnv2.export_onnx(model, tmp_path / "it.onnx", fold=False)
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    batch = images(2, 64, 64) / 255
    received = dict(zip((o.name for o in session.get_outputs()), session.run(None, {"images": batch})))
    assert {*received} == {"P2", "P3", "P4", "P5"}
    assert session.get_inputs()[0].shape == ["N", 64, 64, 3]
    expected = np.asarray(model(batch))
    np.testing.assert_allclose(received["P5"], expected, atol=1e-5 * np.abs(expected).max())
    assert received["P3"].shape == (2, 8, 8, 16)


@pytest.mark.slow
def test_reference(tmp_path):
    reference = golden.load("dense_atto")
    model = keras_cnv2.ConvNeXtV2Atto(include_preprocessing=False, classifier_activation=None)
    golden.set_weights(model, reference["seed"])
    keras_cnv2.export_onnx(model, tmp_path / "it.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    for case, shape in {"224": (2, 224, 224), "odd": (1, 200, 215)}.items():
        (logits,) = session.run(None, {"images": rule.image(int(reference["seed"]), *shape)})
        np.testing.assert_allclose(logits, reference[f"{case}/logits"], atol=1e-5, rtol=0)


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "name", "message"),
        [
            ({}, "it.pb", "ends in .onnx"),
            ({"dtype": "mixed_bfloat16"}, "it.onnx", "must be in float32"),
        ],
    )
    def test_arguments(self, arguments, name, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            keras_cnv2.export_onnx(shared_classifier(**arguments), tmp_path / name)
        assert [*tmp_path.iterdir()] == []

    def test_other_models(self, tmp_path):
        fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**ARCHITECTURE), image_size=64, decoder_dim=8)
        with pytest.raises(ValueError, match="must be a ConvNeXtV2.*`fcmae.backbone`"):
            keras_cnv2.export_onnx(fcmae, tmp_path / "it.onnx")

    def test_missing_packages(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "tf2onnx", None)
        with pytest.raises(keras_cnv2.ExportError, match=r"keras_cnv2\[onnx\]"):
            keras_cnv2.export_onnx(shared_classifier(), tmp_path / "it.onnx")

    def test_what_differs_is_not_left(self, monkeypatch, tmp_path):
        def wrongly_folded(model):
            folded = keras_cnv2.fold(model)
            folded.get_layer("head").bias.assign_add([0, 0, 0, 0, 1e-2])
            return folded

        monkeypatch.setattr(onnx, "fold_model", wrongly_folded)
        with pytest.raises(keras_cnv2.ExportError, match="probabilities: the export's values are not the model's"):
            keras_cnv2.export_onnx(classifier(depths=(1, 1, 1, 1)), tmp_path / "it.onnx", image_size=32)
        assert [*tmp_path.iterdir()] == []


def newest_opset():
    return max(pytest.importorskip("tf2onnx").constants.OPSET_TO_IR_VERSION)


class TestTransformersLayout:
    STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.5, 0.125)}

    def check(self, model, folder, side):
        """Compares the file with the model, which takes images in 0..255 and returns probabilities."""
        session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
        batch = images(2, side, side)
        mean, std = (np.float32(model_values) * 255 for model_values in self.STATISTICS.values())
        (logits,) = session.run(["logits"], {"pixel_values": ((batch - mean) / std).transpose(0, 3, 1, 2)})
        exponents = np.exp(logits - logits.max(-1, keepdims=True))
        np.testing.assert_allclose(exponents / exponents.sum(-1, keepdims=True), model(batch), atol=1e-5)
        return session

    def test_next_to_the_weights(self, tmp_path):
        """With the newest operations, in which reductions take their axes otherwise."""
        model = classifier(depths=(1, 1, 1, 1), image_size=64, **self.STATISTICS)
        keras_cnv2.save_pretrained(model, tmp_path / "it")
        before = {path.name: path.read_bytes() for path in (tmp_path / "it").iterdir()}
        options = {"opset_version": newest_opset()} if keras.__version__ >= "3.12" else {}
        keras_cnv2.export_onnx(model, tmp_path / "it", layout="transformers", **options)
        session = self.check(model, tmp_path / "it", 96)
        assert session.get_inputs()[0].shape == ["batch_size", 3, "height", "width"]
        assert session.get_outputs()[0].shape == ["batch_size", 5]
        metadata = json.loads(session.get_modelmeta().custom_metadata_map["keras_cnv2"])
        assert metadata["mean"] == pytest.approx([127.5, 102, 76.5])
        assert metadata["classifier_activation"] == "linear"
        assert {path.name: path.read_bytes() for path in (tmp_path / "it").iterdir() if path.is_file()} == before
        assert [*(tmp_path / "it" / "onnx").iterdir()] == [tmp_path / "it" / "onnx" / "model.onnx"]

    @pytest.mark.slow
    def test_new_folder_and_oldest_opset(self, tmp_path):
        model = classifier(depths=(1, 1, 1, 1), include_preprocessing=True, **self.STATISTICS)
        options = {"opset_version": onnx.OLDEST_OPSET} if keras.__version__ >= "3.12" else {}
        options |= {"image_size": 64, "resize": "squash", "class_names": [*"abcde"], "fold": False}
        keras_cnv2.export_onnx(model, tmp_path / "it", layout="transformers", **options)
        session = self.check(model, tmp_path / "it", 64)
        assert session.get_inputs()[0].shape == ["batch_size", 3, 64, 64]
        names = {path.name for path in (tmp_path / "it").iterdir()}
        assert names == {"README.md", "config.json", "onnx", "preprocessor_config.json"}
        config, processor = (
            json.loads((tmp_path / "it" / name).read_text()) for name in ("config.json", "preprocessor_config.json")
        )
        assert (config["image_size"], config["id2label"]["4"]) == (64, "e")
        assert processor["size"] == {"height": 64, "width": 64}
        assert "library_name: transformers.js" in (tmp_path / "it" / "README.md").read_text()

    def test_folder_of_another_model(self, tmp_path):
        keras_cnv2.save_pretrained(classifier(depths=(1, 1, 1, 2)), tmp_path / "it")
        with pytest.raises(FileExistsError, match="describes another model.*config.json"):
            keras_cnv2.export_onnx(shared_classifier(), tmp_path / "it", layout="transformers")
        assert not (tmp_path / "it" / "onnx").exists()

    @pytest.mark.parametrize(
        ("make", "options", "message"),
        [
            (shared_classifier, {"layout": "timm"}, "layout must be one of.*Received: layout='timm'"),
            (backbone, {"layout": "transformers"}, "for classifiers, a ConvNeXtV2 with include_top=True"),
            (shared_classifier, {"opset_version": 12}, "opset_version must be an int from 13 to.*Received"),
            (shared_classifier, {"opset_version": 99}, "opset_version must be an int from 13 to.*Received"),
            (shared_classifier, {"opset_version": "15"}, "opset_version must be an int from 13 to.*Received"),
        ],
    )
    def test_errors(self, make, options, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            keras_cnv2.export_onnx(make(), tmp_path / "it.onnx", **options)
        assert [*tmp_path.iterdir()] == []
