import json
import os

import keras
import numpy as np
import pytest
import safetensors.numpy

import keras_cnv2
from tests.checkpoints.samples import FILES, backbone, classifier, fcmae, snapshot, unchanged

pytestmark = pytest.mark.lowest

NAMES = [f"sort {i}" for i in range(10)]


def metadata(path):
    with safetensors.safe_open(path, "np") as file:
        return file.metadata()


@pytest.mark.parametrize("make", [classifier, backbone, fcmae])
def test_there_and_back(make, tmp_path):
    source, target = make(), make()
    keras_cnv2.save_checkpoint(source, tmp_path / "m.safetensors")
    keras_cnv2.load_checkpoint(target, tmp_path / "m.safetensors")
    assert unchanged(target, snapshot(source))


def test_others_may_read_it_as_any_new_file(tmp_path):
    (tmp_path / "any").touch()
    keras_cnv2.save_checkpoint(backbone(), tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_names_and_preprocessing_travel(tmp_path):
    path = tmp_path / "m.safetensors"
    model = classifier(class_names=NAMES, image_size=64, resize="squash")
    keras_cnv2.save_checkpoint(model, path, "timm")
    written = metadata(path)
    assert written["format"] == "pt"
    expected = {"class_names": NAMES, "image_size": 64, "resize": "squash", "classifier_activation": "linear"}
    assert json.loads(written["keras_cnv2"]) == expected
    again = classifier(weights=path)
    assert (again.class_names, again.image_size, again.resize) == (tuple(NAMES), 64, "squash")
    loaded = classifier()
    keras_cnv2.load_checkpoint(loaded, path)
    assert loaded.get_config()["class_names"] == tuple(NAMES)


def test_what_the_user_says_wins(tmp_path):
    path = tmp_path / "m.safetensors"
    keras_cnv2.save_checkpoint(classifier(class_names=NAMES, image_size=64, resize="squash"), path)
    mine = [name.upper() for name in NAMES]
    again = classifier(weights=path, class_names=mine, image_size=128, resize="crop")
    assert (again.class_names, again.image_size, again.resize) == (tuple(mine), 128, "crop")
    assert classifier(weights=path, image_size=128).resize is None  # that of the file belongs to its size


def test_they_travel_through_keras_files(tmp_path):
    classifier(class_names=NAMES, image_size=64, resize="squash").save(tmp_path / "m.keras")
    again = classifier(weights=tmp_path / "m.keras")
    assert (again.class_names, again.image_size, again.resize) == (tuple(NAMES), 64, "squash")


@pytest.mark.parametrize(
    ("classes", "activation", "written"),
    [
        (10, "softmax", None),
        (10, None, "linear"),
        (10, "linear", "linear"),
        (10, "sigmoid", "sigmoid"),
        (10, keras.activations.sigmoid, "sigmoid"),
        (10, lambda logits: logits, None),
        (1, "sigmoid", None),
    ],
)
def test_activation_other_than_the_default_one(classes, activation, written, tmp_path):
    model = classifier(classes=classes, classifier_activation=activation)
    keras_cnv2.save_checkpoint(model, tmp_path / "m.safetensors")
    expected = {} if written is None else {"classifier_activation": written}
    assert json.loads(metadata(tmp_path / "m.safetensors")["keras_cnv2"]) == expected


class TestHeadsOfTheUsers:
    """Their encoder is written, and it is said what is left out."""

    def written(self, model, path):
        keras_cnv2.save_checkpoint(model, path)
        return safetensors.numpy.load_file(path)

    @pytest.mark.parametrize("naming", ["official", "timm"])
    def test_sequential(self, naming, tmp_path, caplog):
        encoder = backbone(include_preprocessing=False)
        model = keras.Sequential([encoder, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, name="head")])
        keras_cnv2.save_checkpoint(model, tmp_path / "m.safetensors", naming)
        assert f"a checkpoint can only hold the encoder, left out: {model.name}/head" in caplog.text
        expected = keras_cnv2.state_dict(encoder, naming)
        received = safetensors.numpy.load_file(tmp_path / "m.safetensors")
        assert received.keys() == expected.keys()
        assert all((received[name] == expected[name]).all() for name in expected)
        assert json.loads(metadata(tmp_path / "m.safetensors")["keras_cnv2"]) == {"include_preprocessing": False}

    def test_layers_of_the_encoder_in_a_functional_model(self, tmp_path):
        """With a head whose layers are called like ours."""
        encoder = backbone()
        x = keras.layers.LayerNormalization(name="norm")(keras.layers.GlobalMaxPooling2D()(encoder.output))
        model = keras.Model(encoder.input, keras.layers.Dense(2, name="mine")(keras.layers.Dense(4, name="head")(x)))
        assert self.written(model, tmp_path / "m.safetensors").keys() == keras_cnv2.state_dict(encoder).keys()
        assert unchanged(backbone(weights=tmp_path / "m.safetensors"), snapshot(encoder))

    def test_model_of_the_users(self, tmp_path):
        class Mine(keras.Model):
            def __init__(self):
                super().__init__()
                self.encoder, self.last = backbone(), keras.layers.Conv2D(2, 1)

            def call(self, images):
                return self.last(self.encoder(images))

        model = Mine()
        model(np.zeros((1, 32, 32, 3), "float32"))
        received = self.written(model, tmp_path / "m.safetensors")
        assert received.keys() == keras_cnv2.state_dict(model.encoder).keys()

    def test_two_encoders(self, tmp_path):
        images = keras.Input((32, 32, 3))
        model = keras.Model(images, [backbone(name="a")(images), backbone(name="b")(images)])
        with pytest.raises(ValueError, match="holds one encoder.*several weights of one name"):
            keras_cnv2.save_checkpoint(model, tmp_path / "m.safetensors")
        assert [*tmp_path.iterdir()] == []


def test_activation_without_a_top_means_nothing(tmp_path):
    model = classifier(include_top=False, pooling="avg", classifier_activation="sigmoid")
    keras_cnv2.save_checkpoint(model, tmp_path / "m.safetensors")
    assert json.loads(metadata(tmp_path / "m.safetensors")["keras_cnv2"]) == {}


def test_encoder_has_none(tmp_path):
    keras_cnv2.save_checkpoint(fcmae(), tmp_path / "m.safetensors")
    assert json.loads(metadata(tmp_path / "m.safetensors")["keras_cnv2"]) == {}


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[1]",
        '{"class_names": "abc"}',
        '{"class_names": ["a"]}',
        '{"image_size": -1}',
        '{"resize": 3}',
        '{"classifier_activation": "magic"}',
        '{"classifier_activation": {"class_name": "function", "config": "magic"}}',
    ],
)
def test_senseless_metadata(content, tmp_path):
    model = classifier()
    safetensors.numpy.save_file(keras_cnv2.state_dict(model), tmp_path / "m.safetensors", {"keras_cnv2": content})
    for weight in model.weights:
        weight.assign(weight + 1)  # else nobody saw that the file's are the same
    before = snapshot(model)
    with pytest.raises(keras_cnv2.CheckpointError, match=r"m\.safetensors"):
        keras_cnv2.load_checkpoint(model, tmp_path / "m.safetensors")
    assert unchanged(model, before)


class TestErrors:
    def test_suffix(self, tmp_path):
        with pytest.raises(ValueError, match=r"end in \.safetensors\. Received"):
            keras_cnv2.save_checkpoint(classifier(), tmp_path / "m.pt")

    def test_naming(self, tmp_path):
        with pytest.raises(ValueError, match="Received: naming='theirs'"):
            keras_cnv2.save_checkpoint(classifier(), tmp_path / "m.safetensors", "theirs")
        assert [*tmp_path.iterdir()] == []

    def test_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "m.safetensors"
        keras_cnv2.save_checkpoint(classifier(), path)
        before = path.read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            keras_cnv2.save_checkpoint(classifier(), path)
        assert [*tmp_path.iterdir()] == [path]
        assert path.read_bytes() == before

    def test_full_disk(self, tmp_path, monkeypatch):
        def full(*_):
            raise safetensors.SafetensorError("I/O error: No space left on device")

        monkeypatch.setattr(safetensors.numpy, "save_file", full)
        with pytest.raises(OSError, match=r"cannot be written: I/O error: No space left.*Received: .*m\.safetensors"):
            keras_cnv2.save_checkpoint(classifier(), tmp_path / "m.safetensors")
        assert [*tmp_path.iterdir()] == []

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no such folder.*Received: .*none/m\.safetensors"):
            keras_cnv2.save_checkpoint(classifier(), tmp_path / "none" / "m.safetensors")

    def test_folder_in_the_place_of_the_file(self, tmp_path):
        (tmp_path / "m.safetensors").mkdir()
        with pytest.raises(IsADirectoryError, match=r"Received: .*m\.safetensors"):
            keras_cnv2.save_checkpoint(classifier(), tmp_path / "m.safetensors")
        assert len([*tmp_path.iterdir()]) == 1


def test_half_precision_model(tmp_path):
    model = classifier(weights=FILES / "official_dense.pt", dtype="bfloat16")
    keras_cnv2.save_checkpoint(model, tmp_path / "m.safetensors")
    again = classifier(weights=tmp_path / "m.safetensors")
    for a, b in zip(again.weights, model.weights):
        np.testing.assert_array_equal(np.asarray(a), np.float32(np.asarray(b)))
