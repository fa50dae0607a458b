import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.folding.block import FoldedBlock
from keras_cnv2.images.normalization import Preprocessing
from keras_cnv2.keras_internals import all_layers
from keras_cnv2.layers import ConvNeXtV2Block
from tests import golden
from tests.golden import rule

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


@keras.saving.register_keras_serializable(package="tests")
class Head(keras.layers.Layer):
    """A layer of a user's own, whose layers get their weights when it is first called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool, self.dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)
        self.norm = keras.layers.Normalization()

    def call(self, x):
        return self.norm(self.dense(self.pool(x)))


def images(count=2, height=64, width=64):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype("uint8")


def with_values(model):
    """Gives every weight a value that matters: fresh GRN and LayerNorm do nothing that could be folded wrongly."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        centre = 1 if weight.path.endswith("norm/gamma") else 0
        weight.assign(rng.normal(centre, 0.2, weight.shape))
    return model


def classifier(**arguments):
    return with_values(keras_cnv2.ConvNeXtV2(**SMALL, classes=10, classifier_activation=None, **arguments))


def small_backbone():
    return with_values(keras_cnv2.ConvNeXtV2Backbone(**SMALL, input_shape=(64, 64, 3)))


def outputs(model, inputs):
    return [keras.ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(model(inputs, training=False))]


def assert_same(folded, model, inputs, tolerance=1e-5):
    for received, expected in zip(outputs(folded, inputs), outputs(model, inputs), strict=True):
        np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


class TestReference:
    @pytest.mark.parametrize("input_shape", [(224, 224, 3), (None, None, 3)])
    def test_logits(self, input_shape):
        reference = golden.load("dense_atto")
        model = keras_cnv2.ConvNeXtV2Atto(
            include_preprocessing=False, classifier_activation=None, input_shape=input_shape
        )
        golden.set_weights(model, reference["seed"])
        folded = keras_cnv2.fold(model)
        for case, shape in {"224": (2, 224, 224), "odd": (1, 200, 215)}.items():
            if None in input_shape or case == "224":
                logits = outputs(folded, rule.image(int(reference["seed"]), *shape))[0]
                np.testing.assert_allclose(logits, reference[f"{case}/logits"], atol=1e-5, rtol=0)


class TestSameOutputs:
    def test_classifier(self):
        model = classifier(input_shape=(32, 32, 3))
        folded = keras_cnv2.fold(model)
        received, expected = (m.predict(images(2, 32, 32), verbose=0) for m in (folded, model))
        np.testing.assert_allclose(received, expected, atol=1e-5 * np.abs(expected).max())

    @pytest.mark.parametrize("count", [1, 3])
    def test_any_number_of_images(self, count):
        model = classifier(input_shape=(64, 64, 3))
        folded = keras_cnv2.fold(model)
        np.testing.assert_allclose(
            folded.predict(images(count), verbose=0), outputs(model, images(count))[0], atol=1e-5
        )

    def test_sizes_that_the_stride_does_not_divide(self):
        model = classifier()
        assert_same(keras_cnv2.fold(model), model, images(1, 75, 101))

    @pytest.mark.parametrize(
        "arguments", [{"stem_stride": 1}, {"include_preprocessing": False}, {"include_top": False}]
    )
    def test_other_models(self, arguments):
        model = classifier(input_shape=(32, 32, 3), drop_path_rate=0.5, **arguments)
        assert_same(keras_cnv2.fold(model), model, images(2, 32, 32) / 255)

    def test_features_far_from_zero(self):
        """Where the mean of the channels is a hundred times their deviation."""
        model = classifier(input_shape=(64, 64, 3))
        model.get_layer("stages_1_0").dwconv.bias.assign(np.full(16, 100.0))
        assert_same(keras_cnv2.fold(model), model, images())

    def test_every_epsilon_of_its_own(self):
        model = classifier(input_shape=(64, 64, 3))
        block = model.get_layer("stages_1_0")
        block.norm.epsilon, block.grn.epsilon, model.get_layer("downsample_1_norm").epsilon = 0.5, 2.0, 1.0
        assert_same(keras_cnv2.fold(model), model, images())

    def test_half_precision(self):
        """In bfloat16 both are equally far from float32."""
        reference = classifier(input_shape=(64, 64, 3))
        model = classifier(input_shape=(64, 64, 3), dtype="mixed_bfloat16")
        folded = keras_cnv2.fold(model)
        assert folded.get_layer("stages_0_0").compute_dtype == "bfloat16"
        assert isinstance(folded.get_layer("preprocessing"), Preprocessing)  # bfloat16 has 8 bits for values up to 255
        expected = outputs(reference, images())[0]
        error, allowed = (np.abs(outputs(m, images())[0] - expected).max() for m in (folded, model))
        assert error < 2 * allowed

    def test_pyramid(self):
        model = small_backbone()
        folded = keras_cnv2.fold(model)
        assert folded.pyramid_level_inputs == model.pyramid_level_inputs
        levels = [keras.Model(m.input, dict(m.pyramid_outputs)) for m in (folded, model)]
        assert_same(*levels, images())

    def test_a_head_of_ones_own(self):
        backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, input_shape=(64, 64, 3))
        layers = [backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4), keras.layers.Dense(2)]
        model = with_values(keras.Sequential(layers))
        assert_same(keras_cnv2.fold(model), model, images())

    @pytest.mark.backends
    @pytest.mark.parametrize(
        ("arguments", "is_folded"),
        [
            ({}, True),
            ({"strides": 2, "activation": "relu"}, True),
            ({"dilation_rate": 2}, True),
            ({"padding": "same"}, False),  # the border is zero, and gets no shift
            ({"padding": "same", "strides": 2}, False),
            ({"groups": 2}, False),
            ({"use_bias": False}, False),
        ],
    )
    def test_convolutions_of_ones_own_after_a_norm(self, arguments, is_folded):
        """The norm's scale and shift become part of a convolution where these are the same numbers."""
        x, norm = keras.Input((9, 8, 4)), keras.layers.LayerNormalization(name="head_norm")
        convolution = keras.layers.Conv2D(6, 3, **arguments)
        model = with_values(keras.Model(x, convolution(norm(ConvNeXtV2Block(4)(x)))))
        folded = keras_cnv2.fold(model)
        inputs = np.random.default_rng(2).normal(size=(2, 9, 8, 4)).astype("float32")
        assert_same(folded, model, inputs)
        assert bool(folded.get_layer("head_norm").weights) != is_folded

    @pytest.mark.backends
    @pytest.mark.parametrize("arguments", [{"axis": (2, 3)}, {"center": False}, {"scale": False}])
    def test_norms_of_ones_own_before_a_convolution(self, arguments):
        x, norm = keras.Input((9, 8, 4)), keras.layers.LayerNormalization(**arguments)
        model = with_values(keras.Model(x, keras.layers.Conv2D(6, 3)(norm(ConvNeXtV2Block(4)(x)))))
        inputs = np.random.default_rng(2).normal(size=(2, 9, 8, 4)).astype("float32")
        assert_same(keras_cnv2.fold(model), model, inputs)

    def test_a_norm_that_others_read_is_left(self):
        model = classifier(input_shape=(64, 64, 3))
        tapped = keras.Model(model.input, [model.get_layer("downsample_1_norm").output, model.output])
        assert_same(keras_cnv2.fold(tapped), tapped, images())

    def test_a_norm_that_an_operation_reads_is_left(self):
        model = classifier(input_shape=(64, 64, 3))
        read = keras.ops.mean(model.get_layer("downsample_1_norm").output, axis=(1, 2))
        tapped = keras.Model(model.input, [read, model.output])
        assert_same(keras_cnv2.fold(tapped), tapped, images())

    @pytest.mark.parametrize(
        "head",
        [
            lambda x: keras.ops.mean(x, axis=(1, 2)) + 1.0,
            lambda x: x[:, 0],
            lambda x: keras.ops.split(x, 2, axis=-1),
            lambda x: 2 * keras.ops.concatenate([x, keras.ops.cast(x, "float32")], axis=1),
        ],
    )
    def test_operations_after_a_backbone(self, head):
        backbone = small_backbone()
        model = keras.Model(backbone.input, head(backbone.output))
        assert_same(keras_cnv2.fold(model), model, images())

    @pytest.mark.backends
    def test_an_operation_between_two_calls_of_a_backbone(self):
        backbone, (first, second) = small_backbone(), (keras.Input((64, 64, 3)) for _ in range(2))
        model = keras.Model([first, second], backbone(first) - backbone(second))
        assert_same(keras_cnv2.fold(model), model, [images(), images()[::-1]])

    @pytest.mark.backends
    def test_an_adapted_normalization(self):
        inputs, norm = keras.Input((64, 64, 3)), keras.layers.Normalization()
        norm.adapt(images().astype("float32"))
        model = keras.Model(inputs, small_backbone()(norm(inputs)))
        assert_same(keras_cnv2.fold(model), model, images())

    @pytest.mark.backends
    def test_a_layer_of_ones_own(self):
        """Its weights, and the Normalization within it."""
        backbone, head = small_backbone(), Head()
        model = keras.Model(backbone.input, head(backbone.output))
        head.norm.adapt(np.random.default_rng(2).normal(3, 2, (50, 4)))
        assert_same(keras_cnv2.fold(model), model, images())


class TestModel:
    def test_the_original_stays(self):
        model = classifier(input_shape=(64, 64, 3))
        before, logits = model.get_weights(), outputs(model, images())[0]
        folded = keras_cnv2.fold(model)
        for weight in folded.weights:
            weight.assign(weight * 0)
        np.testing.assert_array_equal(outputs(model, images())[0], logits)
        for now, then in zip(model.get_weights(), before):
            np.testing.assert_array_equal(now, then)

    def test_fewer_weights(self):
        """Gone are LayerNorm's two and GRN's beta of each block, and those of the three norms before convolutions."""
        model = classifier(input_shape=(64, 64, 3))
        assert len(model.weights) - len(keras_cnv2.fold(model).weights) == 3 * 5 + 2 * 3

    def test_what_it_says_about_images_and_classes(self):
        names = [f"class {number}" for number in range(10)]
        folded = keras_cnv2.fold(classifier(class_names=names, image_size=96, resize="squash"))
        assert (list(folded.class_names), folded.image_size, folded.resize) == (names, 96, "squash")

    @pytest.mark.parametrize("include_preprocessing", [True, False])
    def test_what_it_says_about_pixels(self, include_preprocessing):
        model = classifier(include_preprocessing=include_preprocessing)
        assert keras_cnv2.fold(model).include_preprocessing == include_preprocessing

    def test_save_and_load(self, tmp_path):
        folded = keras_cnv2.fold(classifier(input_shape=(64, 64, 3)))
        folded.save(tmp_path / "folded.keras")
        assert_same(keras.models.load_model(tmp_path / "folded.keras"), folded, images(), 0)

    def test_twice(self):
        folded = keras_cnv2.fold(classifier())
        with pytest.raises(ValueError, match="contain a ConvNeXtV2Block"):
            keras_cnv2.fold(folded)

    def test_no_functional_model(self):
        fcmae = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL), image_size=64, decoder_dim=8)
        with pytest.raises(ValueError, match="for an FCMAE give its backbone"):
            keras_cnv2.fold(fcmae)

    @pytest.mark.parametrize("by_name", [False, True])
    def test_masks(self, by_name):
        x, hidden = keras.Input((8, 8, 4)), keras.Input((8, 8))
        block = ConvNeXtV2Block(4, name="block")
        masked = keras.Model([x, hidden], block(x, hidden=hidden) if by_name else block(x, hidden))
        with pytest.raises(ValueError, match="call their blocks without `hidden`.*'block' is called with"):
            keras_cnv2.fold(masked)

    def test_a_mask_elsewhere(self):
        """A block that another model gives a mask."""
        x, hidden = keras.Input((8, 8, 4)), keras.Input((8, 8))
        block = ConvNeXtV2Block(4)
        model, _ = keras.Model(x, block(x)), block(x, hidden)
        inputs = np.random.default_rng(2).normal(size=(2, 8, 8, 4)).astype("float32")
        assert_same(keras_cnv2.fold(with_values(model)), model, inputs)

    def test_lora(self):
        """It becomes part of the kernels."""
        model = classifier(input_shape=(64, 64, 3))
        rng = np.random.default_rng(3)
        for layer in all_layers(model):
            if type(layer) in (keras.layers.Dense, keras.layers.Conv2D):
                layer.enable_lora(2, lora_alpha=6)
                layer.lora_kernel_b.assign(rng.normal(0, 0.2, layer.lora_kernel_b.shape))
        folded = keras_cnv2.fold(model)
        assert_same(folded, model, images())
        assert not any("lora" in weight.path for weight in folded.weights)

    def test_quantized(self):
        model = classifier(input_shape=(64, 64, 3))
        model.get_layer("stages_0_0").pwconv1.quantize("int8")
        with pytest.raises(ValueError, match="do not take quantized models"):
            keras_cnv2.fold(model)

    def test_wrong_width(self):
        with pytest.raises(ValueError, match="dim must be a positive int"):
            FoldedBlock(0)
