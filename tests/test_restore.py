"""Models built from their checkpoints alone."""

import json
import logging
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
    save = {".safetensors": lambda path: keras_cnv2.save_checkpoint(model, path), ".keras": model.save}
    save.get(suffix, model.save_weights)(path)
    again = restore_model(path)
    assert unchanged(again, snapshot(model))
    for name in ("depths", "dims", "stem_stride", "include_top"):
        assert getattr(again, name) == getattr(model, name)
    assert again.input_shape[-1] == model.input_shape[-1]


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
        with zipfile.ZipFile(fcmae_file) as source, zipfile.ZipFile(tmp_path / "n.keras", "w") as target:
            config = json.loads(source.read("config.json"))
            config["config"] |= setting
            target.writestr("config.json", json.dumps(config))
            target.writestr("model.weights.h5", source.read("model.weights.h5"))
        with pytest.raises(keras_cnv2.CheckpointError, match="no model can be built"):
            restore_model(tmp_path / "n.keras")


class TestActivation:
    @pytest.mark.parametrize(("saved", "restored"), [("sigmoid", "sigmoid"), (None, "softmax"), ("softmax", "softmax")])
    def test_of_a_keras_file(self, saved, restored, tmp_path):
        classifier(classifier_activation=saved).save(tmp_path / "m.keras")
        assert restore_model(tmp_path / "m.keras").classifier_activation == restored

    @pytest.mark.parametrize(("saved", "restored"), [("sigmoid", "sigmoid"), (None, "softmax"), ("softmax", "softmax")])
    def test_of_a_safetensors_file(self, saved, restored, tmp_path):
        model = classifier(classifier_activation=saved)
        keras_cnv2.save_checkpoint(model, tmp_path / "m.safetensors")
        assert restore_model(tmp_path / "m.safetensors").classifier_activation == restored

    def test_function_of_the_users(self, tmp_path):
        classifier(classifier_activation=halved).save(tmp_path / "m.keras")
        keras_cnv2.load_checkpoint(classifier(), tmp_path / "m.keras")  # weights need no activation
        with pytest.raises(keras_cnv2.CheckpointError, match="only activations of Keras are restored"):
            restore_model(tmp_path / "m.keras")

    @pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
    def test_logit_of_a_single_class(self, suffix, tmp_path):
        model = classifier(classes=1)
        model.get_layer("head").bias.assign([-1.0])
        path = tmp_path / f"m{suffix}"
        model.save(path) if suffix == ".keras" else keras_cnv2.save_checkpoint(model, path)
        images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3))
        expected = 1 / (1 + np.exp(-np.asarray(model(images))))
        np.testing.assert_allclose(np.asarray(restore_model(path)(images)), expected, rtol=1e-5)

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
        with pytest.raises(keras_cnv2.CheckpointError, match=r"m\.safetensors: these weights are no whole"):
            restore_model(tmp_path / "m.safetensors")

    def test_missing_stem(self, tmp_path):
        tensors = keras_cnv2.state_dict(backbone())
        del tensors["downsample_layers.0.0.weight"]
        safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
        with pytest.raises(keras_cnv2.CheckpointError, match=r"no whole ConvNeXt V2"):
            restore_model(tmp_path / "m.safetensors")

    @pytest.mark.parametrize("name", ["missing_tensor", "wrong_shape", "unexpected_tensor"])
    def test_samples(self, name):
        with pytest.raises(keras_cnv2.CheckpointError):
            restore_model(FILES / f"{name}.safetensors")

    def test_model_around_ours(self, tmp_path):
        inputs = keras.Input((None, None, 3))
        features = keras.layers.Rescaling(2.0)(inputs)
        keras.Model(inputs, classifier()(features)).save(tmp_path / "m.keras")
        with pytest.raises(keras_cnv2.CheckpointError, match="holds another model"):
            restore_model(tmp_path / "m.keras")

    @pytest.fixture(scope="class")
    def classifier_file(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("classifier") / "m.keras"
        classifier().save(path)
        return path

    @pytest.mark.parametrize("config", ['{"registered_name": "a", "config": []}', '{"config": null}', "3", "[]"])
    def test_senseless_configuration(self, classifier_file, tmp_path, config):
        with zipfile.ZipFile(classifier_file) as source, zipfile.ZipFile(tmp_path / "n.keras", "w") as target:
            for name in source.namelist():
                target.writestr(name, config if name == "config.json" else source.read(name))
        with pytest.raises(keras_cnv2.CheckpointError, match=r"n\.keras"):
            restore_model(tmp_path / "n.keras")

    def test_other_keras_model(self, tmp_path):
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "m.keras")
        with pytest.raises(keras_cnv2.CheckpointError, match=r"m\.keras: .*no ConvNeXt V2"):
            restore_model(tmp_path / "m.keras")
