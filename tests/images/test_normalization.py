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


def test_other_statistics():
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 2)).astype("uint8")
    mean, std = (0.1, 0.5), (0.25, 2.0)
    normalised = keras_cnv2.preprocess_input(x, mean, std)
    np.testing.assert_allclose(numpy(normalised), (x / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy(restore_pixels(normalised, mean, std)), x, rtol=1e-5, atol=1e-3)
    layer = Preprocessing(mean, np.float32(std))
    np.testing.assert_array_equal(numpy(layer(x)), numpy(normalised))
    np.testing.assert_array_equal(numpy(Preprocessing.from_config(layer.get_config())(x)), numpy(normalised))


@pytest.mark.parametrize("mean", [(0.5,), (0.5, 0.5, "a"), 0.5, "0.5", (0.5, 0.5, float("nan")), (0.5, 0.5, True), ()])
def test_impossible_means(mean):
    with pytest.raises(ValueError, match=r"mean must be a sequence of finite numbers.*Received: mean="):
        keras_cnv2.preprocess_input(np.zeros((1, 2, 2, 3)), mean=mean)


@pytest.mark.parametrize("std", [(0.5, 0.5, 0), (0.5, -1, 0.5), (1, 1, float("inf"))])
def test_impossible_deviations(std):
    with pytest.raises(ValueError, match=r"std must be a sequence of positive numbers.*Received: std="):
        keras_cnv2.preprocess_input(np.zeros((1, 2, 2, 3)), std=std)
