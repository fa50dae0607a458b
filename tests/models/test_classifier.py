import inspect
import itertools

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.models import classifier
from keras_cnv2.sizes import SIZES
from tests import golden
from tests.golden import rule
from tests.outputs import outputs

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
EAGERLY = {"run_eagerly": keras.backend.backend() == "tensorflow"}  # where to trace a step takes longer than to do it
SLOW = {
    "femto": pytest.mark.slow,
    "pico": pytest.mark.slow,
    "tiny": pytest.mark.slow,
    "base": [pytest.mark.slow, pytest.mark.release],
    "large": [pytest.mark.slow, pytest.mark.release],
    "huge": [pytest.mark.slow, pytest.mark.release],
}
ALL_SIZES = [pytest.param(size, marks=SLOW.get(size, ())) for size in SIZES]


def build(size):
    return getattr(keras_cnv2, f"ConvNeXtV2{size.capitalize()}")


def images(count=2, side=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype("uint8")


def parameters_of(depths, dims, classes=1000):
    """Counted by hand, layer by layer."""
    stem = 3 * 4 * 4 * dims[0] + 3 * dims[0]
    downsampling = sum(2 * a + 4 * a * b + b for a, b in itertools.pairwise(dims))
    blocks = sum(depth * (8 * dim**2 + (49 + 1 + 2 + 4 + 8 + 1) * dim) for depth, dim in zip(depths, dims))
    return stem + downsampling + blocks + 2 * dims[3] + (dims[3] + 1) * classes


class TestReference:
    @pytest.mark.parametrize("size", SIZES)
    def test_architecture(self, size, monkeypatch):
        """Without the model, which takes gigabytes in the large sizes."""
        monkeypatch.setattr(classifier, "ConvNeXtV2", lambda *architecture, name: architecture)
        depths, dims = build(size)()
        assert parameters_of(depths, dims) == golden.load(f"dense_{size}")["params"] == SIZES[size].parameters

    @pytest.mark.parametrize("size", ALL_SIZES)
    def test_parameters_stages_logits(self, size):
        reference = golden.load(f"dense_{size}")
        model = build(size)(include_preprocessing=False, classifier_activation=None)
        assert model.count_params() == reference["params"] == SIZES[size].parameters
        golden.set_weights(model, reference["seed"])
        last_blocks = [f"stages_{stage}_{depth - 1}" for stage, depth in enumerate(model.depths)]
        everything = keras.Model(model.input, [*(model.get_layer(name).output for name in last_blocks), model.output])
        for case, shape in {"224": (2, 224, 224), "rect": (1, 160, 288), "odd": (1, 200, 215)}.items():
            if f"{case}/logits" not in reference:
                assert size in ("large", "huge")
                continue
            found = everything(rule.image(int(reference["seed"]), *shape))
            *stages, logits = map(keras.ops.convert_to_numpy, found)
            np.testing.assert_allclose(logits, reference[f"{case}/logits"], atol=1e-5, rtol=0)
            golden.assert_stages_match(stages, reference, case, 1e-5)

    @pytest.mark.backends
    @pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="the test above has it")
    def test_logits_on_other_backends(self):
        reference = golden.load("dense_atto")
        model = keras_cnv2.ConvNeXtV2Atto(include_preprocessing=False, classifier_activation=None)
        golden.set_weights(model, reference["seed"])
        logits = outputs(model, rule.image(int(reference["seed"]), 2, 224, 224))
        np.testing.assert_allclose(logits, reference["224/logits"], atol=1e-4, rtol=0)

    def test_pooled_features(self):
        reference = golden.load("dense_atto")
        model = keras_cnv2.ConvNeXtV2Atto(include_top=False, pooling="avg", include_preprocessing=False)
        golden.set_weights(model, reference["seed"])
        pooled = outputs(model, rule.image(int(reference["seed"]), 2, 224, 224))
        np.testing.assert_allclose(pooled[:, :64], reference["224/pooled"], atol=1e-5, rtol=0)

    @pytest.mark.slow
    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compiles with TensorFlow's XLA")
    def test_compiled_with_a_fixed_batch(self):
        import tensorflow as tf

        reference = golden.load("dense_atto")
        model = keras_cnv2.ConvNeXtV2Atto(include_preprocessing=False, classifier_activation=None)
        golden.set_weights(model, reference["seed"])
        x = tf.constant(rule.image(int(reference["seed"]), 2, 224, 224))
        logits = tf.function(model, jit_compile=True, input_signature=[tf.TensorSpec(x.shape)])(x)
        np.testing.assert_allclose(logits, reference["224/logits"], atol=1e-5, rtol=0)


class TestFamily:
    def test_signature_is_that_of_the_class(self):
        general = inspect.signature(keras_cnv2.ConvNeXtV2).parameters
        for size in SIZES:
            function = build(size)
            assert function.__name__ == f"ConvNeXtV2{size.capitalize()}"
            parameters = inspect.signature(function).parameters
            assert [*general][2:] == [*parameters]
            assert parameters["name"].default == f"convnextv2_{size}"

    def test_is_functional(self):
        model = keras_cnv2.ConvNeXtV2Atto()
        features = keras.Model(model.input, model.get_layer("stages_3_1").output)
        assert tuple(features.output.shape) == (None, None, None, 320)
        assert model.name == "convnextv2_atto"

    @pytest.mark.backends
    def test_drop_path_rises_linearly(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, drop_path_rate=0.4)
        rates = [layer.drop_path_rate for layer in model.layers if isinstance(layer, keras_cnv2.ConvNeXtV2Block)]
        np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4])

    def test_initial_values(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=2000, head_init_scale=0.001)
        for weight in model.weights:
            values, name = keras.ops.convert_to_numpy(weight), weight.path
            if name == "head/kernel":
                assert 1.9e-5 < values.std() < 2.1e-5
            elif name.endswith("kernel") and values.size > 3000:
                assert 0.019 < values.std() < 0.021  # not cut at two standard deviations, which would give 0.0176
            elif name.endswith("norm/gamma"):
                assert (values == 1).all()
            elif not name.endswith("kernel"):
                assert (values == 0).all()


class TestTop:
    def test_probabilities_and_logits(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=7)
        assert outputs(model, images()).shape == (2, 7)
        np.testing.assert_allclose(outputs(model, images()).sum(-1), 1, rtol=1e-5)
        logits = keras_cnv2.ConvNeXtV2(**SMALL, classes=7, classifier_activation=None)
        logits.set_weights(model.get_weights())
        expected = keras.ops.softmax(logits(images()))
        np.testing.assert_allclose(outputs(model, images()), keras.ops.convert_to_numpy(expected), rtol=1e-5)

    def test_classes_are_a_thousand_where_nothing_else_says(self):
        for include_top in (True, False):
            model = keras_cnv2.ConvNeXtV2(**SMALL, include_top=include_top, classes=None)
            assert model.classes == 1000
            assert keras_cnv2.ConvNeXtV2.from_config(model.get_config()).get_config() == model.get_config()

    def test_features(self):
        maps = keras_cnv2.ConvNeXtV2(**SMALL, include_top=False)
        assert outputs(maps, images()).shape == (2, 2, 2, 32)
        for pooling, reduce in (("avg", np.mean), ("max", np.max)):
            pooled = keras_cnv2.ConvNeXtV2(**SMALL, include_top=False, pooling=pooling)
            keras_cnv2.load_checkpoint(
                pooled,
                {
                    **keras_cnv2.state_dict(maps),
                    "norm.weight": np.ones(32, "float32"),
                    "norm.bias": np.zeros(32, "float32"),
                },
            )
            x = reduce(np.float64(outputs(maps, images())), axis=(1, 2))
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            np.testing.assert_allclose(outputs(pooled, images()), x, rtol=1e-3, atol=1e-4)


class TestInput:
    @pytest.mark.backends
    def test_preprocessing_inside_equals_outside(self):
        inside = keras_cnv2.ConvNeXtV2(**SMALL, classes=5)
        outside = keras_cnv2.ConvNeXtV2(**SMALL, classes=5, include_preprocessing=False)
        outside.set_weights(inside.get_weights())
        x = (images() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(outputs(inside, images()), outputs(outside, x.astype("float32")), rtol=1e-4)

    def test_integers_and_floats(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=5)
        expected = outputs(model, images().astype("float32"))
        np.testing.assert_array_equal(outputs(model, images()), expected)
        np.testing.assert_allclose(model.predict(images(), verbose=0), expected, rtol=1e-5)

    @pytest.mark.parametrize(("stem_stride", "side"), [(1, 8), (2, 4), (4, 2)])
    def test_stem_stride(self, stem_stride, side):
        model = keras_cnv2.ConvNeXtV2(**SMALL, stem_stride=stem_stride, include_top=False)
        assert outputs(model, images()).shape == (2, side, side, 32)

    @pytest.mark.parametrize("channels", [1, 4])
    def test_channels(self, channels):
        model = keras_cnv2.ConvNeXtV2(**SMALL, input_shape=(32, 48, channels), classes=5)
        assert outputs(model, np.full((2, 32, 48, channels), 255, "uint8")).shape == (2, 5)

    def test_input_tensor(self):
        x = keras.Input((64, 64, 3))
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=5, input_tensor=x)
        assert model.input is x
        assert keras_cnv2.ConvNeXtV2.from_config(model.get_config()).input_shape == (None, 64, 64, 3)

    def test_input_tensor_out_of_other_layers(self, tmp_path):
        x = keras.Input((64, 64, 3))
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=5, input_tensor=keras.layers.Rescaling(2.0)(x))
        assert model.input is x
        with pytest.raises(ValueError, match="Save keras.Model"):
            model.save(tmp_path / "model.keras")
        keras.Model(model.input, model.output).save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(outputs(again, images()), outputs(model, images()))


class TestWithHead:
    @pytest.mark.backends
    @pytest.mark.parametrize("top", [{"classes": 5}, {"include_top": False, "pooling": "max"}, {"include_top": False}])
    def test_weights_are_copied(self, top, tmp_path):
        model = keras_cnv2.ConvNeXtV2(**SMALL, **top, image_size=64, drop_path_rate=0.1, mean=(0.5, 0.5, 0.5))
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(0, 0.2, weight.shape) for weight in model.weights])
        new = model.with_head(3, class_names=["a", "b", "c"], head_init_scale=0.0)
        assert (new.classes, new.class_names, new.image_size, new.mean) == (3, ("a", "b", "c"), 64, (0.5, 0.5, 0.5))
        found = {weight.path: keras.ops.convert_to_numpy(weight) for weight in new.weights}
        for weight in model.weights:
            if not weight.path.startswith("head/"):
                np.testing.assert_array_equal(found[weight.path], keras.ops.convert_to_numpy(weight))
        np.testing.assert_allclose(outputs(new, images()), np.full((2, 3), 1 / 3), rtol=1e-6)
        model.set_weights([0 * weight for weight in model.get_weights()])
        np.testing.assert_array_equal(new.get_layer("stem_conv").get_weights()[0], found["stem_conv/kernel"])
        new.save(tmp_path / "it.keras")
        again = keras.saving.load_model(tmp_path / "it.keras")
        np.testing.assert_array_equal(outputs(again, images()), outputs(new, images()))

    def test_what_is_frozen(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=5)
        model.get_layer("stem_conv").trainable = False
        assert not model.with_head(3).get_layer("stem_conv").trainable
        model.trainable = False
        assert [variable.path for variable in model.with_head(3).trainable_variables] == ["head/kernel", "head/bias"]

    def test_lora_and_quantized(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=5)
        model.get_layer("head").enable_lora(2)
        model.get_layer("stages_0_0").pwconv1.enable_lora(2)
        new = model.with_head(3)
        assert (new.get_layer("head").lora_enabled, new.get_layer("stages_0_0").pwconv1.lora_enabled) == (False, True)
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=5)
        model.quantize("int8")
        new = model.with_head(3)
        assert new.get_layer("head").quantization_mode is None
        features = [keras.Model(m.input, m.get_layer("norm").output) for m in (model, new)]
        np.testing.assert_array_equal(*(outputs(model, images()) for model in features))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"classes": 0}, "classes"),
            ({"classes": 1}, "softmax of one"),
            ({"classes": 2, "class_names": "a"}, "class_"),
        ],
    )
    def test_impossible(self, arguments, message):
        with pytest.raises(ValueError, match=f"{message}.*Received: "):
            keras_cnv2.ConvNeXtV2(**SMALL, include_top=False).with_head(**arguments)


class TestTraining:
    @pytest.mark.parametrize(
        "policy", ["float32", pytest.param("mixed_float16", marks=pytest.mark.backends), "mixed_bfloat16"]
    )
    def test_one_step(self, policy):
        small = {"depths": (1, 1, 1, 1), "dims": (4, 8, 12, 16)}
        model = keras_cnv2.ConvNeXtV2(**small, classes=4, dtype=policy, drop_path_rate=0.1)
        assert outputs(model, images()).dtype == "float32"
        model.compile("sgd", "sparse_categorical_crossentropy", **EAGERLY)
        before = model.get_weights()
        assert np.isfinite(model.train_on_batch(images(), np.array([0, 3])))
        assert all(np.isfinite(w).all() for w in model.get_weights())
        assert any((a != b).any() for a, b in zip(before, model.get_weights()))

    @pytest.mark.slow
    def test_learns(self):
        model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, stem_stride=2, drop_path_rate=0.1)
        how = {"jit_compile": False}  # test_xla.py has it
        model.compile(keras.optimizers.AdamW(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"], **how)
        labels = np.arange(32) % 4
        x = images(32, 32) // 4 + (labels * 48).astype("uint8")[:, None, None, None]
        model.fit(x, labels, epochs=10, batch_size=8, verbose=0)
        assert model.evaluate(x, labels, verbose=0)[1] == 1.0


class TestBadInput:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("depths", (1, 1, 1)),
            ("depths", (1, 0, 1, 1)),
            ("depths", 3),
            ("dims", (8, 8, 8, 8, 8)),
            ("dims", (8, 16, 24.0, 32)),
            ("input_shape", 64),
            ("input_shape", ("64", 64, 3)),
            ("input_shape", (64, 64)),
            ("input_shape", (64, 31, 3)),
            ("input_shape", (64, 64, None)),
            ("input_shape", (64, 64, 0)),
            ("stem_stride", 3),
            ("stem_stride", 8),
            ("classes", 0),
            ("classes", -3),
            ("classes", "ten"),
            ("pooling", "sum"),
            ("class_names", ["one"]),
            ("class_names", "abcd"),
            ("class_names", 4),
            ("drop_path_rate", 1.0),
            ("drop_path_rate", "0.1"),
            ("drop_path_rate", None),
            ("input_tensor", np.zeros((1, 64, 64, 3))),
        ],
    )
    def test_says_what_was_received(self, argument, value):
        with pytest.raises(ValueError, match=argument) as error:
            keras_cnv2.ConvNeXtV2(**{**SMALL, "classes": 4, argument: value})
        assert "Received: " in str(error.value)

    @pytest.mark.parametrize("activation", ["softmax", keras.activations.softmax])
    def test_softmax_of_one_class(self, activation):
        with pytest.raises(ValueError, match=r"give classifier_activation='sigmoid'.*classes=2. Received: classes=1"):
            keras_cnv2.ConvNeXtV2(**SMALL, classes=1, classifier_activation=activation)
        assert keras_cnv2.ConvNeXtV2(**SMALL, classes=1, classifier_activation="sigmoid").output_shape == (None, 1)

    @pytest.mark.backends
    @pytest.mark.parametrize("cls", [keras_cnv2.ConvNeXtV2, keras_cnv2.ConvNeXtV2Backbone])
    def test_images_smaller_than_the_stride(self, cls):
        """Where all stages are as wide, backends would answer for maps without a pixel."""
        model = cls(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), stem_stride=2)
        outputs(model, np.ones((1, 16, 16, 3)))
        with pytest.raises(ValueError, match=r"at least 16 pixels high and wide with stem_stride=2.*\(1, 16, 15, 3\)"):
            model(np.ones((1, 16, 15, 3)))

    def test_channels_first(self):
        keras.config.set_image_data_format("channels_first")
        try:
            with pytest.raises(ValueError, match="channels_last"):
                keras_cnv2.ConvNeXtV2Atto()
        finally:
            keras.config.set_image_data_format("channels_last")
