"""Teachers of all kinds, opened as the command does."""

import keras
import numpy as np
import pytest

import keras_cnv2
from tests.training.runs_in_parts import assert_same_state, interrupt
from tests.training.small import finetuning, source
from training.__main__ import main
from training.commands import training_run
from training.commands.finetune import Finetune
from training.commands.teacher import open_teacher
from training.errors import RecipeError
from training.files import write_json
from training.models.distillation import Student

NAMES = ("ant", "bee", "crane")
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10), "stem_stride": 1, "classes": 3}


def convnext(**options):
    keras.utils.set_random_seed(0)
    options = SMALL | {"class_names": NAMES, "classifier_activation": None, "input_shape": (None, None, 3)} | options
    return keras_cnv2.ConvNeXtV2(**options)


def sequential(activation=None, channels=3, classes=3, side=None):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Rescaling(1 / 30, -4)]
    inputs = keras.Input((side, side, channels))
    return keras.Sequential([inputs, *layers, keras.layers.Dense(classes, activation=activation)])


def saved(model, path):
    model.save(path)
    return str(path)


def opened(source, names=NAMES, **fields):
    return open_teacher(finetuning(teacher=str(source), **fields), 3, names)


def logits_of(teacher, images=IMAGES):
    return keras.ops.convert_to_numpy(teacher(images))


def centred(logits):
    """Logits up to a constant in each row, which no softmax sees."""
    return logits - logits.mean(-1, keepdims=True)


@pytest.mark.backends
class TestKerasModels:
    def test_logits(self, tmp_path):
        model = convnext()
        teacher = opened(saved(model, tmp_path / "model.keras"))
        np.testing.assert_allclose(logits_of(teacher), model.predict(IMAGES, verbose=0), atol=1e-5)

    def test_softmax(self, tmp_path):
        logits = convnext().predict(IMAGES, verbose=0)
        teacher = opened(saved(convnext(classifier_activation="softmax"), tmp_path / "model.keras"))
        np.testing.assert_allclose(centred(logits_of(teacher)), centred(logits), atol=1e-5)

    def test_normalises_as_the_teacher_was_trained(self, tmp_path):
        statistics = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
        inside = convnext(**statistics).predict(IMAGES, verbose=0)
        teacher = opened(saved(convnext(include_preprocessing=False, **statistics), tmp_path / "model.keras"))
        np.testing.assert_allclose(logits_of(teacher), inside, atol=1e-5)

    def test_order_of_the_classes(self, tmp_path):
        model = convnext()
        teacher = opened(saved(model, tmp_path / "model.keras"), ("bee", "crane", "ant"))
        np.testing.assert_allclose(logits_of(teacher), model.predict(IMAGES, verbose=0)[:, [1, 2, 0]], atol=1e-5)

    def test_classes_without_names(self, tmp_path, caplog):
        opened(saved(sequential(), tmp_path / "model.keras"))
        assert "are matched by their order" in caplog.text

    @pytest.mark.parametrize("activation", [None, "softmax"])
    def test_any_classifier_of_its_own_size(self, tmp_path, activation):
        model = sequential(activation, side=24)
        teacher = opened(saved(model, tmp_path / "model.keras"))
        resized = keras.ops.image.resize(IMAGES, (24, 24), interpolation="bilinear")
        expected = model.predict(keras.ops.convert_to_numpy(resized), verbose=0)
        expected = np.log(expected) if activation else expected
        np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-4, atol=1e-4)

    def test_folders(self, tmp_path):
        model = convnext()
        keras_cnv2.save_pretrained(model, tmp_path / "folder", layout="keras")
        (tmp_path / "run").mkdir()
        write_json(tmp_path / "run" / "config.json", {"kind": "Finetuning"})
        model.save(tmp_path / "run" / "classifier.keras")
        for folder in ("folder", "run"):
            found = logits_of(opened(tmp_path / folder))
            np.testing.assert_allclose(found, model.predict(IMAGES, verbose=0), atol=1e-5)


WRONG = {
    "sigmoid": (lambda: convnext(classifier_activation="sigmoid"), "whose last activation is sigmoid"),
    "relu": (lambda: sequential("relu"), "whose last activation is none of these"),
    "channels": (lambda: sequential(channels=1), "images of 3 channels, as the data have.* which takes 1"),
    "count": (lambda: sequential(classes=4), "the 3 classes of the data.* which has 4"),
    "names": (lambda: convnext(class_names=("ant", "bee", "cow")), r"has no \['crane'\], but \['cow'\]"),
    "encoder": (lambda: convnext(include_top=False, class_names=None), "a classifier with one output"),
    "larger": (lambda: convnext(stem_stride=4), r"take images \(16, 16, 3\) of the training.* which fails with"),
}


class TestMistakes:
    @pytest.mark.parametrize(("model", "message"), WRONG.values(), ids=WRONG)
    def test_model(self, tmp_path, model, message):
        with pytest.raises(RecipeError, match=rf"^teacher must .*Received: teacher=.*{message}"):
            opened(saved(model(), tmp_path / "model.keras"))

    def test_file(self, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"no model")
        with pytest.raises(RecipeError, match="^teacher cannot be opened. Received: .*damaged"):
            opened(tmp_path / "model.keras")

    def test_values_that_are_not_finite(self, tmp_path):
        model = sequential()
        model.layers[-1].bias.assign([0, np.nan, 0])
        with pytest.raises(RecipeError, match="have finite logits"):
            opened(saved(model, tmp_path / "model.keras"))

    def test_nothing_stays_behind(self, tmp_path):
        options = ["--data", "digits", "--recipe", "quickstart", "--runs", str(tmp_path / "runs")]
        with pytest.raises(SystemExit, match="error: teacher cannot be opened.*nowhere.keras"):
            main(["finetune", *options, "--teacher", "nowhere.keras"])
        assert not (tmp_path / "runs").exists()

    def test_run_of_another_kind(self, tmp_path):
        write_json(tmp_path / "config.json", {"kind": "Pretraining"})
        with pytest.raises(ValueError, match=r"teacher must be of a finished run that has classifier\.keras"):
            opened(tmp_path)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TensorFlow")
class TestSavedModel:
    @pytest.fixture(scope="class")
    def exported(self, tmp_path_factory):
        """A model of images of 24 x 24 pixels that ends in a softmax, and its SavedModel."""
        model = convnext(classifier_activation="softmax", input_shape=(24, 24, 3))
        folder = tmp_path_factory.mktemp("exported") / "saved_model"
        keras_cnv2.export_saved_model(model, folder, input_dtype="uint8")
        return model, folder

    def test_probabilities(self, exported):
        model, folder = exported
        teacher = opened(folder, ("crane", "ant", "bee"))
        resized = keras.ops.image.resize(IMAGES, (24, 24), interpolation="bilinear")
        expected = model.predict(np.rint(resized), verbose=0)[:, [2, 0, 1]]
        np.testing.assert_allclose(logits_of(teacher), np.log(expected), atol=1e-4)
        assert not teacher.supports_jit

    def test_needs_tensorflow(self, exported, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(RecipeError, match="a SavedModel needs TensorFlow.* with the backend jax"):
            opened(exported[1])

    @pytest.mark.slow
    def test_resumed_run_ends_as_the_undisturbed_one(self, exported, tmp_path, monkeypatch):
        """The whole command, with graphs, a SavedModel, averages and accumulation."""
        monkeypatch.setattr(training_run, "open_source", lambda *args, **kwargs: source())
        options = {"teacher": str(exported[1]), "accumulation": 2, "ema": 0.5, "drop_path": 0.2, "checkpoint_steps": 2}
        recipe = finetuning(**options)
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        metrics = Finetune.run(recipe, whole)
        interrupt(monkeypatch, 5, lambda: Finetune.run(recipe, parts))
        assert Finetune.run(recipe, parts).keys() == metrics.keys()
        assert_same_state(whole, parts)
        assert type(keras.saving.load_model(whole / "classifier.keras")) is keras_cnv2.ConvNeXtV2


@pytest.mark.backends
def test_command(tmp_path, monkeypatch):
    """A run teaches the next one, in half precision."""
    monkeypatch.setattr(training_run, "open_source", lambda *args, **kwargs: source(train=8, test=5))
    if keras.backend.backend() == "tensorflow":
        monkeypatch.setattr(training_run, "train", eager(training_run.train))
    fields = {"epochs": 1, "warmup_epochs": 0, "deterministic": False}
    first = Finetune(finetuning(**fields), tmp_path / "first")
    first.train()
    second = Finetune(
        finetuning(teacher=str(tmp_path / "first"), dtype="mixed_bfloat16", **fields), tmp_path / "second"
    )
    metrics = second.train()
    assert isinstance(second.model, Student)
    assert metrics["images"] == 5
    assert keras_cnv2.from_pretrained(tmp_path / "second").count_params() == first.trained.count_params()


def eager(train):
    return lambda *args, **kwargs: train(*args, **kwargs, run_eagerly=True)
