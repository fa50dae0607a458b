import json
import sys

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
