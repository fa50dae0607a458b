import keras
import numpy as np
import pytest

import keras_cnv2
from tests.training.recipes.test_dense import FIELDS
from training.models.build import new_backbone
from training.models.stems import spread_weights
from training.recipes.dense import Dense

SIZE = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10)}


def saved(path, stem_stride):
    """An encoder with a stem of some stride, every value of it another, and its file."""
    encoder = keras_cnv2.ConvNeXtV2Backbone(**SIZE, stem_stride=stem_stride)
    rng = np.random.default_rng(stem_stride)
    encoder.set_weights([rng.normal(0, 0.5, weight.shape) for weight in encoder.get_weights()])
    encoder.save(path)
    return encoder


@pytest.mark.parametrize("stride", [1, 2])
def test_sees_the_image_smaller(stride, tmp_path):
    small = saved(tmp_path / "small.keras", stride)
    under_head = new_backbone(Dense(**FIELDS), str(tmp_path / "small.keras"))
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    factor = 4 // stride
    means = images.reshape(2, 64 // factor, factor, 96 // factor, factor, 3).mean((2, 4))
    expected = keras.Model(small.input, [*small.pyramid_outputs.values()])(means)
    unnormalized = [under_head.get_layer(f"pyramid_norm_{stage}").input for stage in range(4)]
    for ours, theirs in zip(keras.Model(under_head.input, unnormalized)(images), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def stem_of(model):
    return keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel)


def test_same_stride(tmp_path):
    encoder = saved(tmp_path / "same.keras", 4)
    assert spread_weights(str(tmp_path / "same.keras"), None, 4) is None
    under_head = new_backbone(Dense(**FIELDS), str(tmp_path / "same.keras"))
    np.testing.assert_array_equal(stem_of(under_head), stem_of(encoder))


def test_of_a_classifier_and_of_fcmae(tmp_path):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SIZE, stem_stride=2)
    models = {
        "classifier": keras_cnv2.ConvNeXtV2(**SIZE, stem_stride=2, classes=3),
        "fcmae": keras_cnv2.FCMAE(backbone, image_size=32, decoder_dim=8),
    }
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
        kernel = stem_of(new_backbone(Dense(**FIELDS), str(tmp_path / f"{name}.keras")))
        original = stem_of(getattr(model, "backbone", model))
        np.testing.assert_allclose(kernel[::2, ::2], original / 4, rtol=1e-6)
        np.testing.assert_allclose(kernel.sum((0, 1)), original.sum((0, 1)), atol=1e-6)
