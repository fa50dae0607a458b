import re

import keras
import numpy as np
import pytest

from keras_cnv2.segmentation import PixelCrossentropy
from tests.segmentation.small import CLASSES, labels, numpy

# For four images of 4 x 4 pixels.
WEIGHTS_OF_ANYTHING_ELSE = [(4, 4, 4), (4, 4), (4, 4, 1), (4, 1, 1), (1,), (3,), (3, 1)]


def logits(seed=0):
    return np.random.default_rng(seed).normal(0, 3, (2, 65, 76, CLASSES)).astype("float32")


def expected(y, x, ignore_label=255):
    """Per image, a pixel at a time."""
    losses = np.zeros(y.shape)
    for place in np.ndindex(y.shape):
        if y[place] != ignore_label:
            likely = np.exp(x[place].astype("float64"))
            losses[place] = -np.log(likely[y[place]] / likely.sum())
    return losses.mean((1, 2))


@pytest.mark.backends
@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_brute_force(dtype):
    y, x = labels(), logits()
    images = expected(y, x)
    y = y.astype(dtype)
    np.testing.assert_allclose(numpy(PixelCrossentropy(reduction=None)(y, x)), images, rtol=1e-5)
    np.testing.assert_allclose(numpy(PixelCrossentropy()(y, x)), images.mean(), rtol=1e-5)
    weighted = PixelCrossentropy()(y, x, sample_weight=np.float32([0, 3]))
    np.testing.assert_allclose(numpy(weighted), 1.5 * images[1], rtol=1e-5)


@pytest.mark.backends
def test_one_class():
    """Label 1 is the class, label 0 all else: a sigmoid."""
    y, x = labels(classes=2), logits()[..., :1]
    as_two = np.concatenate([np.zeros_like(x), x], -1)
    np.testing.assert_allclose(numpy(PixelCrossentropy(reduction=None)(y, x)), expected(y, as_two), rtol=1e-5)
    assert np.isnan(numpy(PixelCrossentropy()(y + 1, x)))


@pytest.mark.backends
def test_other_labels_to_ignore():
    y, x = np.minimum(labels(), 4), logits()
    np.testing.assert_allclose(numpy(PixelCrossentropy(0)(y, x)), expected(y, x, 0).mean(), rtol=1e-5)
    np.testing.assert_allclose(numpy(PixelCrossentropy(None)(y, x)), expected(y, x).mean(), rtol=1e-5)


@pytest.mark.backends
def test_nothing_labelled():
    assert float(PixelCrossentropy()(np.full((2, 65, 76), 255), logits())) == 0


@pytest.mark.backends
@pytest.mark.parametrize("wrong", [CLASSES, -1, 254])
def test_labels_that_are_no_class_are_loud(wrong):
    y = labels()
    y[0, 20, 20] = wrong
    per_image = numpy(PixelCrossentropy(reduction=None)(y, logits()))
    assert np.isnan(per_image[0])
    assert np.isfinite(per_image[1])


@pytest.mark.backends
@pytest.mark.parametrize("count", [1, 2])
def test_labels_with_an_axis_of_channels(count):
    y, x = labels(count)[..., None], logits()[:count]
    with pytest.raises(ValueError, match=rf"without an axis of channels\. Received: .*\({count}, 65, 76, 1\)"):
        PixelCrossentropy()(y, x)


@pytest.mark.backends
@pytest.mark.parametrize("weights", [2.0, [2.0, 2.0], [[2.0], [2.0]], np.float32([2, 2])])
def test_weights_of_images(weights):
    y, x = labels(), logits()
    loss = PixelCrossentropy()(y, x, sample_weight=weights)
    np.testing.assert_allclose(numpy(loss), 2 * expected(y, x).mean(), rtol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize("shape", WEIGHTS_OF_ANYTHING_ELSE)
def test_weights_of_anything_else(shape):
    """Of pixels above all: with four images of 4 x 4 they would have been taken for others in silence."""
    y, x = np.zeros((4, 4, 4), "int32"), np.zeros((4, 4, 4, CLASSES), "float32")
    with pytest.raises(ValueError, match=rf"one number per image.*N = 4;.*Received: .*{re.escape(str(shape))}"):
        PixelCrossentropy()(y, x, sample_weight=np.ones(shape, "float32"))


def test_weights_in_a_graph():
    tf = pytest.importorskip("tensorflow")
    specs = [tf.TensorSpec((None, None, 76), tf.int32), tf.TensorSpec((None, 65, None, CLASSES))]

    def traced(*shape):
        signature = [*specs, tf.TensorSpec(shape)]
        return tf.function(PixelCrossentropy(), input_signature=signature, autograph=False)

    weighted = 1.5 * expected(labels(), logits())[1]
    np.testing.assert_allclose(traced(None)(labels(), logits(), [0.0, 3.0]), weighted, rtol=1e-5)
    np.testing.assert_allclose(traced(None, 1)(labels(), logits(), [[0.0], [3.0]]), weighted, rtol=1e-5)
    with pytest.raises(ValueError, match=r"one number per image.*\(None, None, 76\)"):
        traced(None, None, 76).get_concrete_function()


def test_sides_that_a_graph_computes():
    tf = pytest.importorskip("tensorflow")
    specs = [tf.TensorSpec((None, None, 76), tf.int32), tf.TensorSpec((None, 65, None, CLASSES))]
    loss = tf.function(PixelCrossentropy(), input_signature=specs)
    np.testing.assert_allclose(loss(labels(), logits()), expected(labels(), logits()).mean(), rtol=1e-5)


def test_config_holds_every_argument():
    given = {"ignore_label": 3, "reduction": "sum", "name": "mine", "dtype": "float64"}
    loss = keras.losses.deserialize(keras.losses.serialize(PixelCrossentropy(**given)))
    assert isinstance(loss, PixelCrossentropy)
    assert loss.get_config().items() >= given.items()
