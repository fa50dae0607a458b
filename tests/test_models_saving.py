import inspect

import keras
import numpy as np
import pytest

import keras_cnv2

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


def predict(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    return keras.ops.convert_to_numpy(model(images))


class TestConfig:
    ARGUMENTS = {
        **SMALL,
        "include_top": True,
        "classes": 4,
        "classifier_activation": None,
        "pooling": "max",
        "class_names": ("a", "b", "c", "d"),
        "image_size": 96,
        "resize": "squash",
        "include_preprocessing": False,
        "input_shape": (96, 96, 5),
        "stem_stride": 2,
        "drop_path_rate": 0.3,
        "head_init_scale": 0.5,
        "dtype": "mixed_bfloat16",
        "name": "mine",
    }

    def test_holds_every_argument(self):
        arguments = {*inspect.signature(keras_cnv2.ConvNeXtV2).parameters} - {"weights", "input_tensor"}
        assert arguments == self.ARGUMENTS.keys(), "a new argument belongs into this test and into get_config"
        config = keras_cnv2.ConvNeXtV2(**self.ARGUMENTS).get_config()
        assert keras.dtype_policies.get(config["dtype"]).name == "mixed_bfloat16"
        assert {**config, "dtype": "mixed_bfloat16"} == {**self.ARGUMENTS, "trainable": True}
        again = keras_cnv2.ConvNeXtV2.from_config(config)
        assert again.get_config() == config
        assert "weights" not in config

    def test_activation_that_is_a_function(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, classifier_activation=keras.activations.sigmoid)
        again = keras_cnv2.ConvNeXtV2.from_config(model.get_config())
        again.set_weights(model.get_weights())
        np.testing.assert_array_equal(predict(again), predict(model))

    @pytest.mark.backends
    def test_keras_file(self, tmp_path):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, drop_path_rate=0.1, class_names=list("abcd"))
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert type(again) is keras_cnv2.ConvNeXtV2
        assert again.class_names == ("a", "b", "c", "d")
        np.testing.assert_array_equal(predict(again), predict(model))

    def test_frozen_model_stays_frozen(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4)
        model.trainable = False
        assert keras_cnv2.ConvNeXtV2.from_config(model.get_config()).trainable_weights == []


class TestWeights:
    @pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
    def test_from_a_file(self, tmp_path, suffix):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, drop_path_rate=0.1)
        path = tmp_path / f"model{suffix}"
        (model.save if suffix == ".keras" else model.save_weights)(path)
        again = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, weights=path)
        np.testing.assert_array_equal(predict(again), predict(model))

    @pytest.mark.parametrize("weights", ["fcmae_ft_in1k", "imagenet", "model.txt", 3])
    def test_size_without_published_weights(self, weights):
        with pytest.raises(ValueError, match=rf"sizes atto, .*\.pt.*Received: weights={weights!r} with depths"):
            keras_cnv2.ConvNeXtV2(**SMALL, weights=weights)

    @pytest.mark.parametrize("weights", ["fcmae_ft_in22k_in1k_512", "model.txt", 3])
    def test_unknown(self, weights):
        with pytest.raises(ValueError, match=rf"'atto'.*imagenet, .*_ft_in1k, cifar10; or.*Received: {weights!r}"):
            keras_cnv2.ConvNeXtV2Atto(weights=weights)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="Received"):
            keras_cnv2.ConvNeXtV2(**SMALL, weights=str(tmp_path / "none.keras"))
