import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.images.normalization import Preprocessing, restore_pixels

pytestmark = pytest.mark.backends


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_imagenet_statistics():
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("uint8")
    expected = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(numpy(keras_cnv2.preprocess_input(x)), expected, rtol=1e-5, atol=1e-6)


def test_other_channels_get_the_average():
    x = np.full((1, 2, 2, 1), 255, "uint8")
    expected = (1 - (0.485 + 0.456 + 0.406) / 3) / ((0.229 + 0.224 + 0.225) / 3)
    np.testing.assert_allclose(numpy(keras_cnv2.preprocess_input(x)), expected, rtol=1e-5)


def test_restore_pixels_is_the_inverse():
    x = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 3))
    np.testing.assert_allclose(numpy(restore_pixels(keras_cnv2.preprocess_input(x))), x, rtol=1e-5, atol=1e-3)


def test_layer_stays_in_float32():
    layer = Preprocessing(dtype="mixed_float16")
    assert keras.backend.standardize_dtype(layer(np.ones((1, 2, 2, 3))).dtype) == "float32"
    assert Preprocessing.from_config(layer.get_config()).compute_dtype == "float32"
