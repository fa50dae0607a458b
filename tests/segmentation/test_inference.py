import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_cnv2.segmentation import Segmenter, predict_classes
from tests.segmentation.small import images, numpy


@pytest.fixture
def pixelwise():
    """A model that looks at each pixel alone: windows and mirrors must not change what it says."""
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs))
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(0, 0.02, w.shape) for w in model.weights])
    return model


class ByPlace(keras.layers.Layer):
    """Logits that depend on where in its input a pixel lies: windows can be told apart."""

    def call(self, x):
        _, height, width, _ = ops.shape(x)
        rows = ops.cast(ops.arange(height), "float32")[None, :, None, None]
        columns = ops.cast(ops.arange(width), "float32")[None, None, :, None]
        return ops.concatenate([x[..., :1] + rows, x[..., 1:2] + 2 * columns, x[..., 2:] * 0 + 9], axis=-1)

    def compute_output_shape(self, shape):
        return shape


@pytest.fixture
def by_place():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, ByPlace()(inputs))


def logits_by_place(x):
    rows, columns = np.arange(x.shape[1])[:, None], np.arange(x.shape[2])
    return np.stack([x[..., 0] + rows, x[..., 1] + 2 * columns, 0 * x[..., 2] + 9], -1)


def softmax(x):
    likely = np.exp(x - x.max(-1, keepdims=True))
    return likely / likely.sum(-1, keepdims=True)


@pytest.mark.backends
@pytest.mark.parametrize(
    "arguments", [{}, {"window": 16}, {"window": (20, 9), "stride": (7, 9)}, {"window": 40, "flip": True}]
)
def test_views_of_a_model_of_single_pixels(pixelwise, arguments):
    x = images(2, 33, 27)
    expected = numpy(pixelwise(x))
    np.testing.assert_allclose(numpy(Segmenter(pixelwise, **arguments).probabilities(x)), softmax(expected), atol=1e-5)
    classes = predict_classes(pixelwise, x, **arguments)
    np.testing.assert_array_equal(classes, expected.argmax(-1))
    assert classes.dtype == "int32"


@pytest.mark.backends
def test_one_class():
    """A sigmoid and a threshold."""
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 1)(inputs))
    x = images(2, 33, 27) - 128
    one = 1 / (1 + np.exp(-numpy(model(x)).astype("float64")))
    for arguments in ({}, {"window": 16, "flip": True}):
        segmenter = Segmenter(model, **arguments)
        np.testing.assert_allclose(numpy(segmenter.probabilities(x))[..., 1:], one, atol=1e-5)
        np.testing.assert_array_equal(segmenter(x), one[..., 0] > 0.5)


@pytest.mark.backends
def test_windows(by_place):
    x = images(1, 10, 13) / 50
    total, count = np.zeros((1, 10, 13, 3)), np.zeros((10, 13, 1))
    for top in (0, 4):  # of a window of 6 and a stride of 4: the last are shifted inwards
        for left in (0, 4, 7):
            part = (slice(top, top + 6), slice(left, left + 6))
            total[:, *part] += logits_by_place(x[:, *part])
            count[part] += 1
    received = Segmenter(by_place, window=6, stride=4).probabilities(x)
    np.testing.assert_allclose(numpy(received), softmax(total / count), atol=1e-5)


@pytest.mark.backends
def test_images_smaller_than_the_window(by_place):
    x = images(1, 5, 9) / 50
    received = Segmenter(by_place, window=8).probabilities(x)
    # Two windows of 8 x 8 a stride of 5 apart; what is filled up lies below.
    total, count = np.zeros((1, 5, 9, 3)), np.zeros((5, 9, 1))
    for left in (0, 1):
        total[:, :, left : left + 8] += logits_by_place(x[:, :, left : left + 8])
        count[:, left : left + 8] += 1
    np.testing.assert_allclose(numpy(received), softmax(total / count), atol=1e-5)


class Seen(keras.layers.Layer):
    """Passes on what it gets, and keeps it: as its numbers where nothing is traced, else once for each tracing."""

    def __init__(self):
        super().__init__()
        self.inputs = []

    def call(self, x):
        self.inputs.append(x)
        return x


def seeing(model):
    """A model that gets its images through `Seen`, and this layer."""
    seen, pixels = Seen(), keras.Input((None, None, 3))
    model = keras.Model(pixels, model(seen(pixels)))
    seen.inputs.clear()
    return model, seen


def test_filled_up_with_the_mean_colour(pixelwise, eagerly):
    model, seen = seeing(pixelwise)
    Segmenter(model, window=64)(images(1, 40, 50))
    (padded,) = map(numpy, seen.inputs)
    np.testing.assert_allclose(padded[:, :40, :50], images(1, 40, 50), rtol=1e-5)
    np.testing.assert_allclose(padded[0, 50, 60], [123.675, 116.28, 103.53], rtol=1e-5)


@pytest.mark.backends
def test_scales_and_mirrors(by_place):
    x = images(1, 8, 12) / 50

    def resized(x, height, width):
        def weights(side, wanted):
            at = np.clip((np.arange(wanted) + 0.5) * side / wanted - 0.5, 0, side - 1)
            return np.maximum(1 - np.abs(at[:, None] - np.arange(side)), 0)

        return np.einsum("ih,jw,nhwc->nijc", weights(x.shape[1], height), weights(x.shape[2], width), x)

    views = []
    for height, width in ((8, 12), (16, 24)):
        larger = resized(x, height, width)
        views.append(softmax(resized(logits_by_place(larger), 10, 7)))
        views.append(softmax(resized(logits_by_place(larger[:, :, ::-1]), 10, 7))[:, :, ::-1])
    segmenter = Segmenter(by_place, scales=(1, 2.0), flip=True)
    np.testing.assert_allclose(numpy(segmenter.probabilities(x, size=(10, 7))), np.mean(views, 0), atol=1e-4)
    np.testing.assert_array_equal(segmenter(x, size=(10, 7)), np.mean(views, 0).argmax(-1))


class BySize(keras.layers.Layer):
    """Logits that are the height and the width of what is seen, less ten, and 0."""

    def call(self, x):
        _, height, width, _ = ops.shape(x)
        sides = [ops.cast(height, "float32") - 10, ops.cast(width, "float32") - 10, ops.zeros(())]
        return 0 * x + ops.stack(sides)

    def compute_output_shape(self, shape):
        return shape


@pytest.mark.backends
@pytest.mark.parametrize(
    ("scale", "seen"),
    [(0.5, (7, 9)), (0.75, (11, 13)), (1, (14, 17)), (1.25, (18, 21)), (1.75, (25, 30)), (0.01, (1, 1))],
)
def test_scaled_sides_are_rounded_halves_up(scale, seen):
    """As in mmsegmentation, at scales and sizes that do not fit: 14 x 17 pixels."""
    inputs = keras.Input((None, None, 3))
    segmenter = Segmenter(keras.Model(inputs, BySize()(inputs)), scales=(scale,))
    height, width, neither = np.log(numpy(segmenter.probabilities(images(1, 14, 17)))[0, 0, 0].astype("float64"))
    np.testing.assert_allclose((height - neither + 10, width - neither + 10), seen, atol=1e-3)


@pytest.mark.backends
def test_follows_the_models_weights(pixelwise):
    x = images(1, 8, 8)
    segmenter = Segmenter(pixelwise)
    first = numpy(segmenter.probabilities(x))
    pixelwise.set_weights([0 * w for w in pixelwise.get_weights()])
    np.testing.assert_allclose(numpy(segmenter.probabilities(x)), np.full_like(first, 0.25), atol=1e-6)


def test_compiled_once(pixelwise):
    model, seen = seeing(pixelwise)
    segmenter = Segmenter(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in range(8, 16):
            segmenter(images(1, side, 8))
    assert len(seen.inputs) == 1


class TestAModelOfOneSize:
    @pytest.fixture
    def model(self):
        inputs = keras.Input((16, 24, 3))
        return keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs))

    @pytest.mark.backends
    def test_its_window(self, model):
        x = images(1, 20, 20)
        assert Segmenter(model, window=(16, 24), scales=(0.5, 1.0))(x).shape == (1, 20, 20)
        assert Segmenter(model)(images(1, 16, 24)).shape == (1, 16, 24)

    @pytest.mark.parametrize("arguments", [{"window": 16}, {"scales": (0.5, 1.0)}, {"window": (24, 16)}])
    def test_other_views(self, model, arguments):
        with pytest.raises(ValueError, match=r"only takes images of 16 x 24: give window=\(16, 24\)\. Received: "):
            Segmenter(model, **arguments)

    @pytest.mark.backends
    def test_other_images(self, model):
        with pytest.raises(ValueError, match=r"give window=\(16, 24\)\. Received: images of shape \(1, 32, 48, 3\)"):
            Segmenter(model)(images(1, 32, 48))


@pytest.mark.parametrize(
    "arguments",
    [
        {"window": 0},
        {"window": (1, 2, 3)},
        {"stride": 4},
        {"window": 4, "stride": 5},
        {"scales": ()},
        {"scales": (1, 0)},
    ],
)
def test_impossible_arguments(pixelwise, arguments):
    with pytest.raises(ValueError, match="Received: "):
        Segmenter(pixelwise, **arguments)
