"""How a model's pictures become images, and what its classes are called."""

import keras
import numpy as np
import pytest
from PIL import Image

import keras_cnv2
from keras_cnv2.images.classes import imagenet_classes
from keras_cnv2.images.pictures import default_resize
from keras_cnv2.models.pictures import class_names, framing_of, load_image_for, to_input

TINY = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}


def classifier(**arguments):
    return keras_cnv2.ConvNeXtV2(**TINY, **{"classes": 3, **arguments})


class TestFraming:
    @pytest.mark.parametrize(
        ("of_model", "given", "expected"),
        [
            ({}, {}, (224, "crop")),
            ({"image_size": 384}, {}, (384, "squash")),
            ({"image_size": 384, "resize": "crop"}, {}, (384, "crop")),
            ({"image_size": 384, "resize": "squash"}, {"size": 224}, (224, "crop")),  # the way belongs to its size
            ({"image_size": 384, "resize": "squash"}, {"size": 224, "resize": "squash"}, (224, "squash")),
            ({"image_size": 32, "resize": "squash"}, {"size": 32}, (32, "squash")),
            ({"image_size": 32, "resize": "squash"}, {"resize": "crop"}, (32, "crop")),
            ({"resize": "squash"}, {"size": 64}, (64, "squash")),  # and is that of all sizes where there is none
            ({"input_shape": (64, 64, 3)}, {}, (64, "crop")),
            ({"input_shape": (64, 32, 3)}, {}, (224, "crop")),
        ],
    )
    def test_of_a_classifier(self, of_model, given, expected):
        assert framing_of(classifier(**of_model), **given) == expected

    def test_of_a_head_of_the_users(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**TINY, input_shape=(96, 96, 3))
        model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D()])
        assert framing_of(model) == (96, "crop")

    def test_of_an_fcmae(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**TINY)
        assert framing_of(keras_cnv2.FCMAE(backbone, image_size=64, decoder_dim=8)) == (64, "crop")

    def test_of_all_published_files(self):
        """At their own size, what the row says, which is what evaluation and exports do."""
        for size, resize in ((224, "crop"), (384, "squash"), (512, "squash")):
            assert framing_of(classifier(image_size=size, resize=resize)) == (size, resize)
            assert default_resize(size) == resize

    def test_pictures_are_framed_so(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / "it.png")
        model = classifier(image_size=32, resize="squash")
        for given, way in ({}, "squash"), ({"size": 64}, "crop"):
            expected = keras_cnv2.load_image(tmp_path / "it.png", given.get("size", 32), way)
            np.testing.assert_array_equal(load_image_for(model, tmp_path / "it.png", **given), expected)


class TestInput:
    def test_pictures_are_normalised_where_the_model_does_not(self):
        images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype("float32")
        assert to_input(classifier(), images) is images
        received = to_input(classifier(include_preprocessing=False), images)
        np.testing.assert_allclose(received, keras_cnv2.preprocess_input(images), atol=1e-6)

    def test_other_channels_are_left_as_they_are(self):
        bands = np.zeros((1, 32, 32, 12), "float32")
        assert to_input(classifier(include_preprocessing=False, input_shape=(32, 32, 12)), bands) is bands

    def test_layers_of_the_users_see_to_it(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**TINY, include_preprocessing=False)
        images = np.full((1, 32, 32, 3), 255, "float32")
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
        scaled = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 255), backbone, *head])
        assert to_input(scaled, images) is images
        assert to_input(keras.Sequential([backbone, *head]), images).max() < 3


class TestNames:
    def test_given_then_own_then_numbers(self):
        model = classifier(class_names=["a", "b", "c"])
        assert class_names(model, ["x", "y", "z"]) == ("x", "y", "z")
        assert class_names(model) == ("a", "b", "c")
        assert class_names(classifier()) == ("class 0", "class 1", "class 2")

    def test_thousand_classes_are_imagenet_s_where_the_head_is_ours(self):
        assert class_names(classifier(classes=1000)) == imagenet_classes()
        backbone = keras_cnv2.ConvNeXtV2Backbone(**TINY)
        model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1000)])
        assert class_names(model)[999] == "class 999"

    def test_too_few(self):
        with pytest.raises(ValueError, match="must be 3 names, one per class. Received: 2 names"):
            class_names(classifier(), ["a", "b"])
