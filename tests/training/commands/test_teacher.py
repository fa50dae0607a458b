"""Teachers of all kinds, opened as the command does."""

import keras
import numpy as np
import pytest

import keras_cnv2
from tests.training.small import finetuning, source
from training.__main__ import main
from training.commands import training_run
from training.commands.finetune import Finetune
from training.commands.teacher import open_teacher
from training.data.images.augment import Augmentation
from training.errors import RecipeError
from training.files import write_json
from training.loop.train import train
from training.models.build import new_classifier
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


def outputs_of(model, images=IMAGES):
    return keras.ops.convert_to_numpy(model(images, training=False))


def centred(logits):
    """Logits up to a constant in each row, which no softmax sees."""
    return logits - logits.mean(-1, keepdims=True)


@pytest.mark.backends
class TestKerasModels:
    def test_logits(self, tmp_path):
        model = convnext()
        teacher = opened(saved(model, tmp_path / "model.keras"))
        np.testing.assert_allclose(logits_of(teacher), outputs_of(model), atol=1e-5)

    def test_softmax(self, tmp_path):
        logits = outputs_of(convnext())
        teacher = opened(saved(convnext(classifier_activation="softmax"), tmp_path / "model.keras"))
        np.testing.assert_allclose(centred(logits_of(teacher)), centred(logits), atol=1e-5)

    def test_normalises_as_the_teacher_was_trained(self, tmp_path):
        statistics = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
        inside = outputs_of(convnext(**statistics))
        teacher = opened(saved(convnext(include_preprocessing=False, **statistics), tmp_path / "model.keras"))
        np.testing.assert_allclose(logits_of(teacher), inside, atol=1e-5)

    def test_order_of_the_classes(self, tmp_path):
        model = convnext()
        teacher = opened(saved(model, tmp_path / "model.keras"), ("bee", "crane", "ant"))
        np.testing.assert_allclose(logits_of(teacher), outputs_of(model)[:, [1, 2, 0]], atol=1e-5)

    def test_classes_without_names(self, tmp_path, caplog):
        opened(saved(sequential(), tmp_path / "model.keras"))
        assert "are matched by their order" in caplog.text

    @pytest.mark.parametrize(("activation", "side"), [(None, 24), ("softmax", 24), ("softmax", 8)])
    def test_any_classifier_of_its_own_size(self, tmp_path, activation, side):
        model = sequential(activation, side=side)
        teacher = opened(saved(model, tmp_path / "model.keras"))
        resized = keras.ops.image.resize(IMAGES, (side, side), interpolation="bilinear", antialias=side < 16)
        expected = outputs_of(model, resized)
        expected = np.log(expected) if activation else expected
        np.testing.assert_allclose(logits_of(teacher), expected, rtol=1e-4, atol=1e-4)
        # TensorFlow's XLA cannot shrink images without aliasing.
        assert teacher.supports_jit == (side > 16 or keras.backend.backend() != "tensorflow")

    def test_folders(self, tmp_path):
        model = convnext()
        keras_cnv2.save_pretrained(model, tmp_path / "folder", layout="keras")
        (tmp_path / "run").mkdir()
        write_json(tmp_path / "run" / "config.json", {"kind": "Finetuning"})
        model.save(tmp_path / "run" / "classifier.keras")
        for folder in ("folder", "run"):
            found = logits_of(opened(tmp_path / folder))
            np.testing.assert_allclose(found, outputs_of(model), atol=1e-5)


# A model, what is asked of a teacher, and what it is told to be.
WRONG = {
    "sigmoid": (lambda: convnext(classifier_activation="sigmoid"), "end", "whose last activation is sigmoid"),
    "relu": (lambda: sequential("relu"), "ends in a softmax or in logits", "whose last activation is none of these"),
    "channels": (lambda: sequential(channels=1), "images of 3 channels, as the data have", "which takes 1"),
    "count": (lambda: sequential(classes=4), "have the 3 classes of the data", "which has 4"),
    "names": (lambda: convnext(class_names=("ant", "bee", "cow")), "classes", r"has no \['crane'\], but \['cow'\]"),
    "encoder": (lambda: convnext(include_top=False, class_names=None), "with one output", "a ConvNeXtV2"),
    "larger": (lambda: convnext(stem_stride=4), r"images \(16, 16, 3\)", "fails with: .* at least 32 pixels.* 3\\)$"),
}


class TestMistakes:
    @pytest.mark.parametrize(("model", "demand", "received"), WRONG.values(), ids=WRONG)
    def test_model(self, tmp_path, model, demand, received):
        with pytest.raises(RecipeError, match=rf"^teacher must .*{demand}.* Received: teacher=.*, .*{received}"):
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


only_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TensorFlow")


def write_saved_model(folder, facts, kind="probabilities", dtype="float32"):
    """In the form of `keras_cnv2.export_saved_model`: the values are the means of the channels of 24 x 24 pixels."""
    import tensorflow as tf

    module = tf.Module()
    module.factor = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 24, 24, 3), dtype, "images")])
    def serve(images):
        means = module.factor * tf.reduce_mean(tf.cast(images, "float32"), [1, 2])
        return {kind: means / tf.reduce_sum(means, -1, keepdims=True), "classes": tf.as_string(means)}

    tf.saved_model.save(module, str(folder), {"serving_default": serve})
    (folder / "assets.extra").mkdir()
    write_json(folder / "assets.extra" / "keras_cnv2.json", facts)
    return folder


@only_tensorflow
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_saved_model(tmp_path, dtype):
    facts = {"class_names": ["ant", "bee", "crane"], "mean": [10.0] * 3, "std": [2.0] * 3}
    facts |= {"mean": [0.0] * 3, "std": [1.0] * 3} if dtype == "uint8" else {}
    teacher = opened(write_saved_model(tmp_path / "model", facts, dtype=dtype), ("crane", "ant", "bee"))
    images = np.full((2, 16, 16, 3), [100.4, 50.0, 30.0], "float32")
    seen = np.array([100, 50, 30] if dtype == "uint8" else [45.2, 20, 10])
    np.testing.assert_allclose(np.exp(logits_of(teacher, images)), [(seen / seen.sum())[[2, 0, 1]]] * 2, rtol=1e-5)
    assert not teacher.supports_jit


@only_tensorflow
@pytest.mark.parametrize(
    ("facts", "kind", "message"),
    [
        ({"classifier_activation": "sigmoid"}, "probabilities", "whose last activation is sigmoid"),
        ({"class_names": ["ant", "bee", "cow"]}, "probabilities", "has no .*crane"),
        ({}, "scores", r"return logits or probabilities\. Received: .* returns \['classes', 'scores'\]"),
    ],
)
def test_saved_model_that_cannot_teach(tmp_path, facts, kind, message):
    with pytest.raises(RecipeError, match=message):
        opened(write_saved_model(tmp_path / "model", facts, kind))


def test_saved_model_needs_tensorflow(tmp_path, monkeypatch):
    (tmp_path / "saved_model.pb").touch()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RecipeError, match="a SavedModel needs TensorFlow.* with the backend jax"):
        opened(tmp_path)


@pytest.mark.backends
def test_command_builds_a_student(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "open_source", lambda *args, **kwargs: source())
    path = saved(convnext(class_names=None), tmp_path / "teacher.keras")
    command = Finetune(finetuning(teacher=path, deterministic=False), tmp_path / "run")
    model = command.new_model(command.start())
    assert isinstance(model, Student)
    command.model = model
    assert "loss" not in command.fit_arguments()
    np.testing.assert_allclose(logits_of(model.teacher), outputs_of(convnext()), atol=1e-5)
    # A run that only ends needs no teacher, which may be gone.
    ends = Finetune(finetuning(teacher="gone.keras", deterministic=False), tmp_path / "other")
    assert not isinstance(ends.new_model(ends.start(finish="newest")), Student)


@pytest.mark.slow
@only_tensorflow
def test_in_graphs(tmp_path):
    """What XLA cannot compile is not compiled by it: an exported SavedModel, and how images are shrunk for it."""
    model = convnext(classifier_activation="softmax", input_shape=(8, 8, 3), class_names=None)
    keras_cnv2.export_saved_model(model, tmp_path / "teacher")
    fields = {"dtype": "mixed_float16", "deterministic": False, "epochs": 1, "warmup_epochs": 0}
    recipe, names = finetuning(teacher=str(tmp_path / "teacher"), **fields), source().class_names
    student = new_classifier(recipe, 3, names, teacher=open_teacher(recipe, 3, names))
    progress = train(student, recipe, source(8), tmp_path, Augmentation.of(recipe, 3), metrics=lambda: ["accuracy"])
    assert not student.supports_jit
    assert progress.history[0]["teacher_loss"] > 0
