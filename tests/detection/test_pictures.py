import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_cnv2.detection import fit_picture

MEAN = [124, 116, 104]


@pytest.mark.parametrize(("height", "width"), [(96, 48), (40, 160), (64, 64), (16, 32)])
def test_the_picture_is_that_of_pil(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype("uint8")
    image, scale = fit_picture(pixels, 64)
    scaled = (round(width * 64 / max(height, width)), round(height * 64 / max(height, width)))
    expected = np.asarray(Image.fromarray(pixels).resize(scaled, Image.Resampling.BILINEAR), "float32")
    np.testing.assert_allclose(image[: scaled[1], : scaled[0]], expected, atol=1)
    rest = np.array(image)
    rest[: scaled[1], : scaled[0]] = MEAN
    np.testing.assert_array_equal(rest, np.broadcast_to(np.float32(MEAN), (64, 64, 3)))
    assert scale == 64 / max(height, width)


@pytest.mark.parametrize("sides", [(37, 101), (39, 101), (101, 37), (1, 300)])
def test_places_go_by_one_scale(sides):
    # A ramp along each side shows where a pixel came from, in a graph that does not know the size.
    y, x = np.meshgrid(np.arange(sides[0]), np.arange(sides[1]), indexing="ij")
    pixels = np.stack([y, x, 0 * x], axis=-1).astype("float32")
    fit = tf.function(lambda pixels: fit_picture(pixels, 64), input_signature=[tf.TensorSpec((None, None, 3))])
    image, scale = (value.numpy() for value in fit(pixels))
    height, width = (max(1, round(side * float(scale))) for side in sides)
    rows, columns = slice(2, max(2, height - 2)), slice(2, max(2, width - 2))  # at borders averages lean inwards
    inner, places = image[rows, columns], (np.arange(64) + 0.5) / scale - 0.5
    np.testing.assert_allclose(inner[..., 0], np.broadcast_to(places[rows, None], inner.shape[:2]), atol=0.51)
    np.testing.assert_allclose(inner[..., 1], np.broadcast_to(places[None, columns], inner.shape[:2]), atol=0.51)
    assert (image[height:] == MEAN).all()
    assert (image[:, width:] == MEAN).all()
    assert (image[:height, :width, 2] == 0).all()
