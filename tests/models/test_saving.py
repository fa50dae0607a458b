import copy
import inspect
import pickle

import keras
import numpy as np
import pytest

import keras_cnv2
from keras_cnv2.keras_internals import all_layers, direct_layers
from tests.outputs import outputs

SMALL = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}


def predict(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    return outputs(model, images)


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
        "mean": (0.1, 0.2, 0.3, 0.4, 0.5),
        "std": (0.5, 0.4, 0.3, 0.2, 0.1),
        "input_shape": (96, 96, 5),
        "stem_stride": 2,
        "drop_path_rate": 0.3,
        "head_init_scale": 0.5,
        "norm_epsilon": 1e-12,
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


class TestSingleLayers:
    """What was set on layers after a model was built."""

    MODELS = {
        "classifier": lambda: keras_cnv2.ConvNeXtV2(**SMALL, classes=4),
        "backbone": lambda: keras_cnv2.ConvNeXtV2Backbone(**SMALL),
        "segmenter": lambda: keras_cnv2.segmentation.UPerNet(keras_cnv2.ConvNeXtV2Backbone(**SMALL), 3, 8, 4),
        "fcmae": lambda: keras_cnv2.FCMAE(
            keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=1), 64, decoder_dim=8, seed=1
        ),
    }

    @pytest.mark.parametrize(
        ("kind", "restore"),
        [*((kind, "file") for kind in MODELS if kind != "fcmae"), ("classifier", "pickle"), ("classifier", "deepcopy")],
    )
    def test_is_kept(self, kind, restore, tmp_path):
        model = self.MODELS[kind]()
        for name in ("stem_conv", "stages_0_0"):
            model.get_layer(name).trainable = False
        model.get_layer("stages_0_0").norm.trainable = True  # within a block that is frozen
        model.get_layer("stages_1_0").dwconv.trainable = False
        model.get_layer("stages_2_1").remat = True
        model.get_layer("stages_2_1").pwconv2.enable_lora(2, lora_alpha=6)
        if restore == "file":
            model.save(tmp_path / "model.keras")
            again = keras.saving.load_model(tmp_path / "model.keras")
        else:
            again = pickle.loads(pickle.dumps(model)) if restore == "pickle" else copy.deepcopy(model)
        paths = [[v.path.split("/", 1)[-1] for v in each.trainable_variables] for each in (model, again)]
        assert paths[0] == paths[1]
        assert [part.trainable for part in all_layers(again)] == [part.trainable for part in all_layers(model)]
        lora = again.get_layer("stages_2_1").pwconv2
        assert (lora.lora_enabled, lora.lora_rank, lora.lora_alpha) == (True, 2, 6)
        assert [layer.name for layer in again.layers if getattr(layer, "remat", False)] == ["stages_2_1"]
        assert again.get_config() == model.get_config()

    def test_training_goes_on(self, tmp_path):
        model = self.MODELS["classifier"]()
        for layer in model.layers[:-3]:
            layer.trainable = False
        model.compile(keras_cnv2.LayerDecayAdamW(1e-2), "sparse_categorical_crossentropy", run_eagerly=True)
        images, labels = np.full((4, 32, 32, 3), 9, "uint8"), np.arange(4)
        model.fit(images, labels, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert int(again.optimizer.iterations) == 1
        stem = again.get_layer("stem_conv").get_weights()[0]
        again.fit(images, labels, verbose=0)
        np.testing.assert_array_equal(again.get_layer("stem_conv").get_weights()[0], stem)

    @pytest.mark.parametrize("change", ["lora", "int8"])
    def test_state_of_the_optimizer(self, change, tmp_path):
        model = self.MODELS["classifier"]()
        dense = model.get_layer("stages_3_0").pwconv1
        dense.enable_lora(2) if change == "lora" else dense.quantize("int8")
        model.get_layer("stages_0_0").grn.trainable = False
        model.compile("adam", "sparse_categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
        for number, variable in enumerate(model.optimizer.variables):
            variable.assign(np.full(variable.shape, number))
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        names = [[v.path for v in each.trainable_variables] for each in (model, again)]
        assert names[0] == names[1]
        assert len(model.optimizer.variables) == len(again.optimizer.variables) == 2 * len(names[0]) + 2
        for one, two in zip(model.optimizer.variables, again.optimizer.variables):
            np.testing.assert_array_equal(one, two)

    def test_lists_of_older_files(self):
        older = {"frozen": ["stem_conv", "stem_norm"], "remat": ["stages_2_1", "stages_3_0"]}
        model = keras_cnv2.ConvNeXtV2.from_config({**self.MODELS["classifier"]().get_config(), **older})
        assert [layer.name for layer in model.layers if not layer.trainable] == older["frozen"]
        frozen, remat = (
            {name: {key: value} for name in names}
            for key, value, names in (("trainable", False, older["frozen"]), ("remat", True, older["remat"]))
        )
        assert model.get_config()["settings"] == frozen | remat

    def test_of_a_layer_that_there_is_not(self):
        config = {**self.MODELS["backbone"]().get_config(), "settings": {"stages_0_0/pwconv3": {"trainable": False}}}
        with pytest.raises(ValueError, match="settings must name layers that exist.* Received: 'stages_0_0/pwconv3'"):
            keras_cnv2.ConvNeXtV2Backbone.from_config(config)

    def test_nothing_is_kept_of_others(self):
        assert not {"settings", "input"} & self.MODELS["classifier"]().get_config().keys()


def test_input_keeps_name_dtype_and_number_of_images(tmp_path):
    pictures = keras.Input(batch_shape=(2, 32, 32, 3), dtype="uint8", name="pictures")
    model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, input_tensor=pictures)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.input.name, again.input.dtype, again.input.shape) == ("pictures", "uint8", (2, 32, 32, 3))
    images = np.full((2, 32, 32, 3), 9, "uint8")
    for each in (model, again):
        each.run_eagerly = keras.backend.backend() == "tensorflow"
    one, two = (each.predict({"pictures": images}, verbose=0) for each in (model, again))
    np.testing.assert_array_equal(one, two)


def test_activation_of_a_user():
    def shifted(x):
        return x + 1

    model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, classifier_activation=shifted)
    again = keras_cnv2.ConvNeXtV2.from_config(model.get_config(), custom_objects={"shifted": shifted})
    assert again.classifier_activation is not None
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(predict(again), predict(model))


def test_numpy_ints(tmp_path):
    sizes = {name: tuple(map(np.int64, values)) for name, values in SMALL.items()}
    model = keras_cnv2.ConvNeXtV2(**sizes, classes=np.int64(4), stem_stride=np.int64(2))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predict(again), predict(model))


# Keras has the first two from 3.10 on; which others, differs.
MODES = [mode for mode in ("int8", "float8", "int4") if mode in keras.src.dtype_policies.QUANTIZATION_MODES]


def by_name(model):
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    found = outputs(model, images)
    return found if isinstance(found, dict) else {"output": found}


def quantized(model):
    """The names of the layers and of those that they are in."""
    parts = [part for layer in all_layers(model) for part in ((layer.name, inner) for inner in direct_layers(layer))]
    return [(name, part.name) for name, part in parts if part.quantization_mode]


@pytest.mark.backends
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
class TestQuantized:
    def assert_same(self, model, path):
        model.save(path)
        again = keras.saving.load_model(path)
        assert quantized(again) == quantized(model)
        one, two = map(by_name, (model, again))
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])

    @pytest.mark.parametrize("kind", TestSingleLayers.MODELS)
    def test_model(self, kind, tmp_path):
        model = TestSingleLayers.MODELS[kind]()
        model.quantize("int8")
        assert len(quantized(model)) == {"classifier": 11, "backbone": 10, "segmenter": 10, "fcmae": 14}[kind]
        self.assert_same(model, tmp_path / "model.keras")

    @pytest.mark.slow
    def test_other_modes(self, tmp_path):
        for mode in MODES:
            model = TestSingleLayers.MODELS["classifier"]()
            model.quantize(mode)
            self.assert_same(model, tmp_path / "model.keras")

    @pytest.mark.parametrize("kind", ["classifier", "fcmae"])
    def test_model_under_a_map_of_policies(self, kind, tmp_path):
        """Keras's own dense layers compute with a map, and fail to be saved."""
        int8 = keras.dtype_policies.QuantizedDTypePolicy("int8", "float32")
        names = ("stages_0_0/pwconv1", "stages_2_./pwconv2", "head", "proj", "decoder_0/pwconv1")
        policies = keras.dtype_policies.DTypePolicyMap("float32", dict.fromkeys(names, int8))
        if kind == "classifier":
            model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, dtype=policies)
        else:
            model = keras_cnv2.FCMAE(keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=1, dtype=policies), 64)
        assert len(quantized(model)) == (4 if kind == "classifier" else 5)
        self.assert_same(model, tmp_path / "model.keras")

    def test_global_map_of_policies(self):
        """It stays as it is, and what a model is given itself goes before it."""
        policies = keras.dtype_policies.DTypePolicyMap("mixed_bfloat16")
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policies)
        try:
            model = keras_cnv2.ConvNeXtV2(**SMALL, classes=4, dtype="float32")
            assert model.dtype_policy.name == "float32"
            assert policies.get_config()["policy_map"] == {}
        finally:
            keras.config.set_dtype_policy(before)

    def test_within_another_model(self, tmp_path):
        model = keras.Sequential(
            [keras_cnv2.ConvNeXtV2Backbone(**SMALL, input_shape=(64, 64, 3)), keras.layers.Dense(3, name="mine")]
        )
        model.quantize("int8")
        self.assert_same(model, tmp_path / "model.keras")

    @pytest.mark.parametrize("cls", [keras_cnv2.ConvNeXtV2, keras_cnv2.ConvNeXtV2Backbone])
    def test_no_model_is_made_so(self, cls):
        with pytest.raises(ValueError, match=r"once it is built. Received: dtype='int8_from_float32'"):
            cls(**SMALL, dtype="int8_from_float32")
