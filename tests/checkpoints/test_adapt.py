"""Checkpoints for models that differ from them on purpose: other classes, channels, sizes and precisions."""

import functools

import keras
import numpy as np
import pytest

import keras_cnv2
from tests.checkpoints.samples import FILES, SMALL, backbone, classifier
from tests.golden import rule

FILE = FILES / "timm_linear.safetensors"


@functools.cache
def published():
    """The model without changes; it is only looked at."""
    return classifier(weights=FILE)


def stem(model):
    return keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel)


class TestClasses:
    def test_asked_for(self, caplog):
        model = classifier(classes=7, weights=FILE, name="mine")
        assert caplog.messages == ["mine: not taken from the checkpoint, keeps its initial values: head"]
        np.testing.assert_array_equal(stem(model), stem(published()))
        np.testing.assert_array_equal(model.get_layer("norm").gamma, published().get_layer("norm").gamma)
        assert np.ptp(model.get_layer("head").kernel) > 0

    def test_not_asked_for(self):
        with pytest.raises(keras_cnv2.CheckpointError, match=r"has 10 classes, the model's head has 1000\."):
            keras_cnv2.ConvNeXtV2(**SMALL, weights=FILE)

    def test_model_that_exists(self):
        """Nobody who loads into a model asks for its head to stay random."""
        with pytest.raises(keras_cnv2.CheckpointError, match=r"head\.fc\.weight is \(10, 32\), expected \(7, 32\)"):
            keras_cnv2.load_checkpoint(classifier(classes=7), FILE)

    def test_names_stay_with_their_head(self, tmp_path):
        source = classifier(weights=FILE, class_names=[f"c{i}" for i in range(10)], image_size=96, resize="squash")
        keras_cnv2.save_checkpoint(source, tmp_path / "m.safetensors")
        model = classifier(classes=7, weights=tmp_path / "m.safetensors")
        assert (model.class_names, model.image_size, model.resize) == (None, 96, "squash")


class TestChannels:
    """As timm's adapt_input_conv: one channel gets the sum, others the kernel again and again, times 3 / channels."""

    KERNEL = rule.tensor(4242, "downsample_layers.0.0.weight", (8, 3, 4, 4))

    def load(self, channels, caplog):
        model = classifier(weights=FILE, input_shape=(None, None, channels), name="mine")
        assert caplog.messages == [f"mine: the stem's kernel was adapted to {channels} channels"]
        assert model(np.zeros((1, 64, 64, channels))).shape == (1, 10)
        return stem(model).transpose(3, 2, 0, 1)

    def test_one(self, caplog):
        np.testing.assert_allclose(self.load(1, caplog), self.KERNEL.sum(1, keepdims=True), rtol=1e-6)

    def test_two(self, caplog):
        np.testing.assert_allclose(self.load(2, caplog), self.KERNEL[:, :2] * 1.5, rtol=1e-6)

    def test_four(self, caplog):
        expected = np.concatenate([self.KERNEL, self.KERNEL[:, :1]], 1) * 0.75
        np.testing.assert_allclose(self.load(4, caplog), expected, rtol=1e-6)

    def test_backbone(self, caplog):
        keras_cnv2.ConvNeXtV2Backbone(**SMALL, weights=FILE, input_shape=(None, None, 1), name="mine")
        assert caplog.messages[0] == "mine: the stem's kernel was adapted to 1 channels"

    def test_only_from_three(self):
        tensors = keras_cnv2.state_dict(backbone(input_shape=(None, None, 4)))
        with pytest.raises(keras_cnv2.CheckpointError, match=r"weight is \(8, 4, 4, 4\), expected \(8, 3, 4, 4\)"):
            keras_cnv2.load_checkpoint(backbone(), tensors)

    def test_gray_picture_gives_what_its_rgb_form_gives(self):
        images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 1))
        gray = classifier(weights=FILE, input_shape=(None, None, 1), include_preprocessing=False)
        rgb = classifier(weights=FILE, include_preprocessing=False)
        np.testing.assert_allclose(gray(images), rgb(np.repeat(images, 3, -1)), atol=1e-5)


@pytest.mark.parametrize("shape", [(96, 96, 3), (160, 64, 3)])
def test_other_input_sizes(shape):
    images = np.random.default_rng(0).uniform(0, 255, (1, *shape))
    fixed, free = classifier(weights=FILE, input_shape=shape), published()
    np.testing.assert_array_equal(fixed(images), free(images))


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16", "mixed_float16", "float64"])
def test_dtype_policies(policy):
    model, reference = classifier(weights=FILE, dtype=policy), published()
    for ours, theirs in zip(model.weights, reference.weights):
        assert ours.dtype == keras.dtype_policies.get(policy).variable_dtype
        expected = keras.ops.cast(theirs, ours.dtype)
        np.testing.assert_array_equal(np.float64(np.asarray(ours)), np.float64(np.asarray(expected)))


class TestStem:
    @pytest.mark.parametrize("stride", [1, 2])
    def test_other_stride_is_a_misfit(self, stride):
        with pytest.raises(keras_cnv2.CheckpointError, match=r"stem\.0\.weight is \(8, 3, 4, 4\)"):
            classifier(weights=FILE, stem_stride=stride)
