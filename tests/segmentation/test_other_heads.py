"""A training step of each head that others have for backbones: what they ask of one, ours has."""

import sys

import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.segmentation import ConfusionMatrix, PixelCrossentropy, deeplab_v3_plus
from tests.segmentation.small import backbone, images, labels, numpy, with_values

SIZE = 64


def deeplab(**arguments):
    pytest.importorskip("keras_cv")
    body = backbone(depths=(1, 1, 1, 1), input_shape=(SIZE, 2 * SIZE, 3))
    return deeplab_v3_plus(body, **{"classes": 3, "width": 8, "projection_width": 4, **arguments})


class TestDeepLab:
    def test_trains_on_logits(self):
        model = deeplab(class_names=["a", "b", "c"])
        assert model.class_names == ("a", "b", "c")
        x, y = images(2, SIZE, 2 * SIZE), labels(2, SIZE, 2 * SIZE, classes=3)
        logits = numpy(model(x))
        assert logits.shape == (2, SIZE, 2 * SIZE, 3)
        assert logits.dtype == "float32"
        assert logits.min() < 0  # as no probability is
        model.compile("sgd", PixelCrossentropy(), metrics=[ConfusionMatrix(3)], run_eagerly=True)
        before = model.get_layer("segmentation_head").get_weights()[0]
        history = model.fit(x, y, verbose=0).history
        assert np.isfinite(history["loss"][0])
        assert 0 <= history["mean_iou"][0] <= 1
        assert np.abs(model.get_layer("segmentation_head").get_weights()[0] - before).max() > 0
        assert np.abs(model.backbone.get_layer("pyramid_norm_3").beta.numpy()).max() > 0

    def test_reads_the_norms(self):
        model = with_values(deeplab())
        x = images(1, SIZE, 2 * SIZE)
        before = numpy(model(x))
        for level in (0, 3):
            norm = model.backbone.get_layer(f"pyramid_norm_{level}")
            norm.set_weights([2 * norm.gamma, norm.beta])
            after = numpy(model(x))
            assert np.abs(after - before).max() > 1e-3
            before = after

    @pytest.mark.parametrize(
        ("body", "arguments"),
        [
            ({"input_shape": (None, None, 3)}, {}),
            ({"input_shape": (64, 72, 3)}, {}),
            ({"stem_stride": 2}, {}),
            ({}, {"classes": 0}),
            ({}, {"width": 0}),
        ],
    )
    def test_impossible_arguments(self, body, arguments):
        pytest.importorskip("keras_cv")
        with pytest.raises(ValueError, match="Received: "):
            deeplab_v3_plus(backbone(**{"input_shape": (64, 64, 3), **body}), **{"classes": 3, **arguments})

    def test_folds(self):
        model = with_values(deeplab())
        x = images(1, SIZE, 2 * SIZE)
        expected = numpy(model(x))
        error = np.abs(numpy(keras_cnv2.fold(model)(x)) - expected).max()
        assert error < 1e-4 * np.abs(expected).max()

    def test_missing_kerascv_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "keras_cv", None)
        with pytest.raises(ImportError, match=r'DeepLabV3\+.*pip install "keras_cnv2\[keras-cv\]" \(.*keras_cv'):
            deeplab_v3_plus(None, 3)


@pytest.fixture
def hub():
    return pytest.importorskip("keras_hub")


def trains(model, x, y):
    """Whether a step changes the encoder's first and last weights, with a finite loss."""
    weights = [v for v in model.trainable_variables if v.path.endswith(("stem_conv/kernel", "pyramid_norm_3/gamma"))]
    before = [numpy(v) for v in weights]
    loss = model.fit(x, y, verbose=0).history["loss"][0]
    assert np.isfinite(loss)
    assert len(before) == 2
    return all(np.abs(numpy(v) - b).max() > 0 for v, b in zip(weights, before))


@pytest.mark.slow
def test_keras_hub_deeplab(hub):
    pyramid = hub.models.DeepLabV3Backbone(
        image_encoder=backbone(depths=(1, 1, 1, 1)),
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[1, 2],
        low_level_feature_key="P2",
        projection_filters=4,
        image_shape=(SIZE, SIZE, 3),
    )
    model = hub.models.DeepLabV3ImageSegmenter(pyramid, num_classes=3, preprocessor=None)
    model.compile("sgd", PixelCrossentropy(), metrics=[ConfusionMatrix(3)], run_eagerly=True)
    assert trains(model, images(2, SIZE, SIZE), labels(2, SIZE, SIZE, classes=3))


@pytest.mark.slow
def test_keras_hub_retinanet(hub):
    pyramid = hub.models.RetinaNetBackbone(
        backbone(depths=(1, 1, 1, 1)), min_level=3, max_level=5, use_p5=False, image_shape=(SIZE, SIZE, 3)
    )
    model = hub.models.RetinaNetObjectDetector(
        pyramid, num_classes=3, bounding_box_format="xyxy", pre_logits_num_conv_layers=1, preprocessor=None
    )
    model.compile("sgd", run_eagerly=True)
    boxes = np.float32([[[4, 4, 40, 40], [10, 20, 30, 60]], [[0, 0, 60, 30], [-1, -1, -1, -1]]])
    y = {"boxes": boxes, "labels": np.float32([[0, 1], [2, -1]])}
    assert trains(model, images(2, SIZE, SIZE), y)
