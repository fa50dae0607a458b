import keras
import numpy as np
import pytest
from PIL import Image

import keras_cnv2
from keras_cnv2.keras_hub import ConvNeXtV2ImageConverter
from tests.keras_hub.small import STATISTICS, own_model

pytestmark = pytest.mark.backends


def numpy(x):
    return keras.ops.convert_to_numpy(x) if keras.ops.is_tensor(x) else np.asarray(x)


def picture(height=60, width=90):
    """Smooth colours, with noise: an image of which every resize is another one."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1) * 80 + 128
    return (waves + np.random.default_rng(0).normal(0, 5, waves.shape)).clip(0, 255).astype("uint8")


@pytest.mark.parametrize("resize", ["crop", "squash", 0.7])
def test_as_evaluation_does(resize, tmp_path):
    """Pixels are nearly those of `load_image`: the centre may be off by half a pixel of the original."""
    Image.fromarray(picture()).save(tmp_path / "image.png")
    expected = keras_cnv2.preprocess_input(
        keras_cnv2.load_image(tmp_path / "image.png", 32, resize), *STATISTICS.values()
    )
    model = own_model(image_size=32, resize=resize)
    converter = ConvNeXtV2ImageConverter.from_model(model)
    difference = np.abs(numpy(converter(picture())) - numpy(expected)).mean(axis=(0, 1)) * STATISTICS["std"] * 255
    assert difference.max() < 3  # grey levels of 255
    other = ConvNeXtV2ImageConverter.from_model(model, crop_pct=1.0, crop_to_aspect_ratio=resize == "squash")
    assert np.abs(numpy(other(picture())) - numpy(expected)).mean() * 0.2 * 255 > 15


def test_normalisation_is_the_models():
    converter = ConvNeXtV2ImageConverter.from_model(own_model(include_preprocessing=False))
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")
    converter.image_size = None
    expected = keras_cnv2.preprocess_input(x, *STATISTICS.values())
    np.testing.assert_allclose(numpy(converter(x)), numpy(expected), atol=1e-5)


def test_default_normalisation_is_imagenets():
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")
    found = numpy(ConvNeXtV2ImageConverter()(x))
    np.testing.assert_allclose(found, numpy(keras_cnv2.preprocess_input(x)), atol=1e-5)
    assert found.dtype == "float32"


def test_other_shapes():
    """A model for images that are not square has all of each image, squashed."""
    converter = ConvNeXtV2ImageConverter.from_model(own_model(input_shape=(32, 64, 3)))
    assert (converter.image_size, converter.crop_to_aspect_ratio, converter.crop_pct) == ((32, 64), False, 1.0)
    assert numpy(converter(picture())).shape == (32, 64, 3)


def test_size_can_be_set():
    converter = ConvNeXtV2ImageConverter(image_size=(32, 32), crop_pct=0.5)
    assert converter.get_config()["image_size"] == (32, 32)
    converter.image_size = (8, 16)
    assert numpy(converter(picture()[None])).shape == (1, 8, 16, 3)
    again = ConvNeXtV2ImageConverter.from_config(converter.get_config())
    assert again.get_config() == converter.get_config()
    np.testing.assert_array_equal(numpy(again(picture())), numpy(converter(picture())))


def test_boxes_are_cropped_with_the_image():
    converter = ConvNeXtV2ImageConverter(image_size=(32, 32), crop_pct=0.5, bounding_box_format="xyxy")
    boxes = {"boxes": np.float32([[[20, 20, 40, 40]]]), "labels": np.zeros((1, 1))}
    found = converter({"images": picture(60, 60)[None], "bounding_boxes": boxes})
    # The inner half of 60 pixels, from 15 to 45, becomes 32 pixels.
    np.testing.assert_allclose(
        numpy(found["bounding_boxes"]["boxes"]), (np.float32([[[20, 20, 40, 40]]]) - 15) * 32 / 30, atol=1e-3
    )


@pytest.mark.parametrize("crop_pct", [0, 1.1, True, "1"])
def test_bad_crop(crop_pct):
    with pytest.raises(ValueError, match=r"crop_pct must be a number in \(0, 1\]. Received: "):
        ConvNeXtV2ImageConverter(crop_pct=crop_pct)
