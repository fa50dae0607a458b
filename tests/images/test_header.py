import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.images.header import picture_size, pixel_limit
from tests.export.small import encoded, png_that_claims

ALPHA = np.random.default_rng(0).integers(0, 256, (37, 300, 4)).astype("uint8")

GIF = encoded("GIF")
PICTURES = {
    "jpeg": (encoded("JPEG"), (96, 120)),
    "progressive jpeg": (encoded("JPEG", progressive=True), (96, 120)),
    "png": (encoded("PNG"), (96, 120)),
    "lossy webp": (encoded("WEBP"), (96, 120)),
    "lossless webp": (encoded("WEBP", lossless=True), (96, 120)),
    "webp with alpha": (encoded("WEBP", array=ALPHA), (37, 300)),
    "lossless webp with alpha": (encoded("WEBP", array=ALPHA, lossless=True), (37, 300)),
    "png that claims more": (png_that_claims(30_000, 2**31 - 1), (30_000, 2**31 - 1)),
    "gif": (GIF, (96, 120)),
    "gif whose frame exceeds its screen": (GIF[:6] + b"\x50\x00\x20\x00" + GIF[10:], (96, 120)),
    "bmp": (encoded("BMP"), (96, 120)),
    "text": (b"no picture", (0, 0)),
    "nothing": (b"", (0, 0)),
}


# Traced once.
size_of = tf.function(picture_size, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


@pytest.mark.parametrize("name", PICTURES)
def test_size(name):
    contents, expected = PICTURES[name]
    height, width = size_of(tf.constant(contents))
    assert (int(height), int(width)) == expected


@pytest.mark.parametrize(("given", "limit"), [(7, 7), (2**40, 2**40), (10**30, 2**63 - 1)])
def test_limits_of_any_size(given, limit):
    assert int(pixel_limit(given)) == limit
