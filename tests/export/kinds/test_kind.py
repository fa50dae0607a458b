import keras
import pytest

import keras_cnv2
from keras_cnv2.detection import Detector
from keras_cnv2.export.images import Images
from keras_cnv2.export.kinds.classifier import ExportedClassifier
from keras_cnv2.export.kinds.detector import ExportedDetector
from keras_cnv2.export.kinds.encoder import ExportedEncoder
from keras_cnv2.export.kinds.fcmae import ExportedFCMAE
from keras_cnv2.export.kinds.kind import kind_for
from keras_cnv2.export.kinds.segmenter import ExportedSegmenter
from keras_cnv2.export.options import Options
from tests.detection.samples import tiny, tiny_mask_rcnn
from tests.export.small import classifier, shared_backbone, shared_classifier
from tests.segmentation.small import upernet

SHALLOW = {"depths": (1, 1, 1, 1)}
TARGETS = ("saved_model", "serving", "litert", "onnx")


@pytest.mark.parametrize("target", TARGETS)
def test_models_that_every_export_takes(target):
    own = keras.Sequential([shared_backbone(), keras.layers.GlobalAveragePooling2D()])
    assert kind_for(shared_classifier(), target) is ExportedClassifier
    assert kind_for(own, target) is ExportedClassifier
    assert kind_for(shared_backbone(), target) is ExportedEncoder
    assert kind_for(classifier(**SHALLOW, include_top=False, class_names=None), target) is ExportedEncoder


@pytest.mark.parametrize("target", TARGETS)
def test_other_objects(target):
    for model in (None, "tiny", keras.Sequential([keras.layers.Dense(1)])):
        with pytest.raises(ValueError, match="must be a ConvNeXtV2.*Received: model="):
            kind_for(model, target)


@pytest.mark.parametrize("target", TARGETS)
def test_fcmae(target):
    model = keras_cnv2.FCMAE(shared_backbone(), image_size=64, decoder_dim=8)
    if target in ("saved_model", "serving"):
        assert kind_for(model, target) is ExportedFCMAE
    else:
        with pytest.raises(ValueError, match="`fcmae.backbone`"):
            kind_for(model, target)


def assert_targets(model, kind, targets, message):
    for target in TARGETS:
        if target in targets:
            assert kind_for(model, target) is kind
        else:
            with pytest.raises(ValueError, match=f"{message}.*Received: model="):
                kind_for(model, target)


def test_segmenters():
    message = "Segmentation models can only be exported as SavedModels"
    assert_targets(upernet(values=False), ExportedSegmenter, ("saved_model",), message)


@pytest.mark.parametrize("build", [tiny_mask_rcnn, pytest.param(tiny, marks=pytest.mark.slow)])
def test_detectors(build):
    if build is tiny:
        pytest.importorskip("keras_cv")
    message = "Detectors can only be exported as SavedModels, serving folders, ONNX files"
    for model in (build(), Detector(build())):
        assert_targets(model, ExportedDetector, ("saved_model", "serving", "onnx"), message)


@pytest.mark.parametrize(
    ("arguments", "options", "sides"),
    [
        ({}, {}, (None, None)),
        ({}, {"fixed": True}, (224, 224)),
        ({}, {"fixed": True, "image_size": 96}, (96, 96)),
        ({"image_size": 64}, {}, (None, None)),
        ({"image_size": 64}, {"fixed": True}, (64, 64)),
        ({"input_shape": (64, 32, 3)}, {"fixed": True}, (64, 32)),
    ],
)
def test_sides_of_images(arguments, options, sides):
    model = shared_classifier(**SHALLOW, **arguments)
    images = kind_for(model)(model, Options(**options)).images
    assert images == Images((None, *sides, 3), 32, Options().reading.max_pixels, "float32")
