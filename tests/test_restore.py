"""Models built from their checkpoints alone."""

import json
import logging
import shutil
import zipfile

import keras
import numpy as np
import pytest
import safetensors.numpy

import keras_cnv2
from keras_cnv2.restore import restore_model
from tests.checkpoints.samples import CLASSIFIERS, ENCODERS, FILES, SMALL, backbone, classifier, snapshot, unchanged


@keras.saving.register_keras_serializable(package="tests")
def halved(logits):
    return logits / 2


def save(model, path):
    """Writes a model to a file of the kind that the path says."""
    if path.suffix == ".safetensors":
        keras_cnv2.save_checkpoint(model, path)
    else:
        (model.save if path.suffix == ".keras" else model.save_weights)(path)


def test_classifier_answers_with_probabilities():
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    np.testing.assert_allclose(np.asarray(restore_model(FILES / CLASSIFIERS[0])(images)).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name):
    model = restore_model(FILES / name)
    assert isinstance(model, keras_cnv2.ConvNeXtV2)
    assert unchanged(model, snapshot(classifier(weights=FILES / name)))
    assert model.classifier_activation == "softmax"


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder(name):
    assert isinstance(restore_model(FILES / name), keras_cnv2.ConvNeXtV2Backbone)


def test_fcmae(caplog):
    caplog.set_level(logging.INFO)
    model = restore_model(FILES / "official_fcmae_sparse.pt")
    assert isinstance(model, keras_cnv2.FCMAE)
    assert (model.decoder_dim, len(model.decoder)) == (48, 1)
    assert caplog.messages == []  # nothing fresh, nothing left out


@pytest.mark.parametrize(
    "arguments",
    [
        {"include_top": False, "pooling": "avg", "depths": (1, 1, 1, 1)},
        {"stem_stride": 2, "input_shape": (None, None, 4), "depths": (2, 1, 1, 1), "classes": 3},
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5"])
def test_own_files(arguments, suffix, tmp_path):
    model = classifier(**arguments)
    path = tmp_path / f"m{suffix}"
    save(model, path)
    again = restore_model(path)
    assert unchanged(again, snapshot(model))
    for name in ("depths", "dims", "stem_stride", "include_top"):
        assert getattr(again, name) == getattr(model, name)
    assert again.input_shape[-1] == model.input_shape[-1]


def lora(model):
    layer = model.get_layer("stages_0_0").pwconv1
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "m.keras"
    classifier().save(path)
    return path


class TestModelOfAFile:
    """What is in a file, also what weights alone do not tell."""

    @pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
    @pytest.mark.parametrize("include_top", [True, False])
    def test_own_normalisation(self, suffix, include_top, tmp_path):
        model = classifier(include_preprocessing=False, include_top=include_top, pooling="avg")
        save(model, tmp_path / f"m{suffix}")
        images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3))
        np.testing.assert_allclose(restore_model(tmp_path / f"m{suffix}")(images), model(images), atol=1e-5)

    @pytest.mark.parametrize("make", [classifier, backbone])
    def test_dtype_and_size(self, make, tmp_path):
        make(dtype="mixed_bfloat16", input_shape=(64, 64, 3)).save(tmp_path / "m.keras")
        model = restore_model(tmp_path / "m.keras")
        assert (model.dtype_policy.name, model.input_shape) == ("mixed_bfloat16", (None, 64, 64, 3))
        model = restore_model(tmp_path / "m.keras", any_size=True)
        assert (model.dtype_policy.name, model.input_shape) == ("mixed_bfloat16", (None, None, None, 3))
        assert getattr(model, "image_size", 64) == 64

    def test_any_size_of_an_input_of_the_users(self, tmp_path):
        classifier(input_tensor=keras.Input((32, 64, 3), name="photos")).save(tmp_path / "m.keras")
        model = restore_model(tmp_path / "m.keras", any_size=True)
        assert (model.input.name, model.input_shape, model.image_size) == ("photos", (None, None, None, 3), None)

    @pytest.mark.parametrize("change", [lambda model: model.quantize("int8"), lambda model: lora(model)])
    def test_quantized_and_with_lora(self, change, tmp_path):
        model = classifier(depths=(1, 1, 1, 1), input_shape=(32, 32, 3))
        change(model)
        model.save(tmp_path / "m.keras")
        images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
        again = restore_model(tmp_path / "m.keras")
        np.testing.assert_allclose(again(images), model(images), atol=1e-5)
        assert [layer.quantization_mode for layer in again.layers] == [each.quantization_mode for each in model.layers]

    def test_head_of_the_users(self, tmp_path):
        pooled = keras.layers.GlobalAveragePooling2D()
        model = keras.Sequential([backbone(), pooled, keras.layers.Dense(3, activation="softmax")])
        model.compile("adam", "mse")
        images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
        expected = model(images)
        model.save(tmp_path / "m.keras")
        np.testing.assert_allclose(restore_model(tmp_path / "m.keras")(images), expected, atol=1e-6)

    def test_model_around_ours(self, tmp_path):
        inputs = keras.Input((None, None, 3))
        outputs = keras.ops.exp(classifier()(keras.layers.Rescaling(2.0)(inputs)))
        model = keras.Model(inputs, {"a": outputs, "b": -outputs})
        model.save(tmp_path / "m.keras")
        images = np.random.default_rng(0).uniform(0, 100, (2, 32, 32, 3))
        again = restore_model(tmp_path / "m.keras")
        assert {*again(images)} == {"a", "b"}
        np.testing.assert_allclose(again(images)["b"], model(images)["b"], rtol=1e-5)

    @pytest.mark.parametrize(
        "entry",
        [
            {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"},
            {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"},
            {"module": "keras", "class_name": "utils.get_file", "config": {}, "registered_name": None},
            {"module": "keras.config", "class_name": "enable_unsafe_deserialization", "config": {}},
            {"class_name": "__lambda__", "config": {"value": ["AAAA", None, None]}},
            {"module": "keras.layers", "class_name": "Lambda", "config": {}},
            {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
            {"class_name": "Dense", "config": {"units": 1}},
            {"class_name": 3, "config": {}},
        ],
    )
    def test_configurations_that_name_anything(self, entry, classifier_file, tmp_path):
        shutil.copy(classifier_file, tmp_path / "m.keras")
        rewrite(tmp_path / "m.keras", lambda config: config["config"].update(classifier_activation=entry))
        with pytest.raises(keras_cnv2.CheckpointError, match="nor registered in this process"):
            restore_model(tmp_path / "m.keras")

    @pytest.mark.parametrize(
        "claim", [{"dims": [10**6] * 4}, {"depths": [1, 1, 10**6, 1]}, {"classes": 10**9}, {"depths": 3}]
    )
    def test_claims_that_the_weights_do_not_bear_out(self, claim, classifier_file, tmp_path):
        shutil.copy(classifier_file, tmp_path / "m.keras")
        rewrite(tmp_path / "m.keras", lambda config: config["config"].update(claim))
        with pytest.raises(keras_cnv2.CheckpointError, match="no model can be built"):
            restore_model(tmp_path / "m.keras")


def test_weights_that_are_no_numbers(tmp_path, caplog):
    """Of a model as Keras loads it; of others, `test_convert` has a test."""
    model = keras.Sequential([backbone(input_shape=(32, 32, 3)), keras.layers.Conv2D(2, 1, name="mine")])
    model.get_layer("mine").bias.assign([1, np.nan])
    model.layers[0].get_layer("stages_1_0").pwconv1.bias.assign([*[np.inf, -np.inf] * 32])
    model.save(tmp_path / "m.keras")
    restore_model(tmp_path / "m.keras")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{model.name}: 2 tensors hold NaN or infinities")
    assert message.endswith("stages_1_0/pwconv1/bias, mine/bias")


def rewrite(path, change):
    """Changes the configuration in a Keras file."""
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    with zipfile.ZipFile(path, "w") as target:
        for name, part in {**parts, "config.json": json.dumps(config)}.items():
            target.writestr(name, part)


class TestSettingsOfKerasFiles:
    def test_pooling(self, tmp_path):
        classifier(include_top=False, pooling="max").save(tmp_path / "m.keras")
        assert restore_model(tmp_path / "m.keras").pooling == "max"

    def test_fcmae(self, tmp_path):
        settings = {"image_size": (64, 96), "mask_ratio": 0.4, "norm_pix_loss": False}
        keras_cnv2.FCMAE(backbone(), **settings, decoder_dim=16).save(tmp_path / "m.keras")
        model = restore_model(tmp_path / "m.keras")
        assert {name: getattr(model, name) for name in settings} == settings

    @pytest.fixture(scope="class")
    def fcmae_file(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("fcmae") / "m.keras"
        keras_cnv2.FCMAE(backbone(), image_size=64, decoder_dim=16).save(path)
        return path

    @pytest.mark.parametrize("setting", [{"mask_ratio": "much"}, {"image_size": 65}, {"image_size": {"side": 64}}])
    def test_senseless(self, setting, fcmae_file, tmp_path):
        shutil.copy(fcmae_file, tmp_path / "n.keras")
        rewrite(tmp_path / "n.keras", lambda config: config["config"].update(setting))
        with pytest.raises(keras_cnv2.CheckpointError, match="no model can be built"):
            restore_model(tmp_path / "n.keras")


class TestActivation:
    @pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
    @pytest.mark.parametrize(
        ("saved", "restored"), [("sigmoid", "sigmoid"), (None, "linear"), ("softmax", "softmax"), ("relu", "relu")]
    )
    def test_is_that_of_the_file(self, saved, restored, suffix, tmp_path):
        model = classifier(classifier_activation=saved)
        save(model, tmp_path / f"m{suffix}")
        again = restore_model(tmp_path / f"m{suffix}")
        assert keras.activations.get(again.classifier_activation) is keras.activations.get(restored)

    def test_function_of_the_users(self, tmp_path):
        model = classifier(classifier_activation=halved)
        model.save(tmp_path / "m.keras")
        images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
        np.testing.assert_allclose(restore_model(tmp_path / "m.keras")(images), model(images), rtol=1e-5)

    def test_function_that_is_not_known_here(self, tmp_path, monkeypatch):
        model = classifier(classifier_activation=halved)
        model.save(tmp_path / "m.keras")
        monkeypatch.setattr(keras.saving, "get_registered_object", lambda *_: None)
        keras_cnv2.load_checkpoint(classifier(), tmp_path / "m.keras")  # weights need no activation
        with pytest.raises(keras_cnv2.CheckpointError, match="nor registered in this process"):
            restore_model(tmp_path / "m.keras")

    @pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
    def test_number_of_a_regression(self, suffix, tmp_path):
        model = classifier(classes=1)
        model.get_layer("head").bias.assign([42.0])
        save(model, tmp_path / f"m{suffix}")
        images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
        np.testing.assert_allclose(restore_model(tmp_path / f"m{suffix}")(images), model(images), rtol=1e-5)

    def test_given(self):
        assert (
            restore_model(FILES / "official_dense.pt", classifier_activation="linear").classifier_activation == "linear"
        )


def test_official_file_name_tells_preprocessing(tmp_path):
    path = tmp_path / "convnextv2_tiny_1k_224_fcmae.pt"
    path.write_bytes((FILES / "official_fcmae_dense.pt").read_bytes())
    assert (classifier(weights=path).image_size, classifier(weights=path).resize) == (224, "crop")


@pytest.mark.slow
def test_official_file_name_tells_names_and_preprocessing(tmp_path):
    model = keras_cnv2.ConvNeXtV2(**SMALL)
    path = tmp_path / "convnextv2_tiny_22k_384_ema.safetensors"
    keras_cnv2.save_checkpoint(model, path)
    assert restore_model(path).image_size is None  # not the official name
    path = path.rename(tmp_path / "convnextv2_tiny_22k_384_ema.pt")
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(tensor) for name, tensor in keras_cnv2.state_dict(model).items()}
    torch.save({"model": tensors}, path)
    again = restore_model(path)
    assert (again.image_size, again.resize, again.class_names[0]) == (384, "squash", "tench")


class TestBad:
    def test_file_that_claims_a_model_it_does_not_hold(self, tmp_path):
        tensors = keras_cnv2.state_dict(backbone())
        tensors["stages.3.0.norm.weight"] = np.zeros(100_000, "float32")
        safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
        with pytest.raises(keras_cnv2.CheckpointError, match=r"m\.safetensors: these weights are an incomplete"):
            restore_model(tmp_path / "m.safetensors")

    def test_missing_stem(self, tmp_path):
        tensors = keras_cnv2.state_dict(backbone())
        del tensors["downsample_layers.0.0.weight"]
        safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
        with pytest.raises(keras_cnv2.CheckpointError, match=r"an incomplete ConvNeXt V2"):
            restore_model(tmp_path / "m.safetensors")

    @pytest.mark.parametrize("name", ["missing_tensor", "wrong_shape", "unexpected_tensor"])
    def test_samples(self, name):
        with pytest.raises(keras_cnv2.CheckpointError):
            restore_model(FILES / f"{name}.safetensors")

    @pytest.mark.parametrize("config", ['{"registered_name": "a", "config": []}', '{"config": null}', "3", "[]"])
    def test_senseless_configuration(self, classifier_file, tmp_path, config):
        with zipfile.ZipFile(classifier_file) as source, zipfile.ZipFile(tmp_path / "n.keras", "w") as target:
            for name in source.namelist():
                target.writestr(name, config if name == "config.json" else source.read(name))
        with pytest.raises(keras_cnv2.CheckpointError, match=r"n\.keras"):
            restore_model(tmp_path / "n.keras")

    def test_other_keras_model(self, tmp_path):
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "m.keras")
        with pytest.raises(keras_cnv2.CheckpointError, match=r"m\.keras: .*names of a ConvNeXt V2"):
            restore_model(tmp_path / "m.keras")
