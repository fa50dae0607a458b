"""Files that were written before the folders were moved still load, with the same numbers.

They were written on Linux with Keras 3.15, TensorFlow 2.20 and the layout of commit 7e77ce3: models of four blocks with
random weights, two runs of tests/training/small.py that were interrupted in their second epoch, and expected.npz, what
the models made of "images".
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_cnv2
from tests.training.small import finetuning, pretraining, source
from training.commands import finetune, pretrain
from training.commands.config import recipe_of

FILES = Path(__file__).with_name("files")
EXPECTED = np.load(FILES / "expected.npz")
IMAGES = EXPECTED["images"]

CALLS = {
    "classifier": lambda model: model(IMAGES),
    "backbone": lambda model: model(IMAGES)["P5"],
    "fcmae": lambda model: model(IMAGES, hidden=EXPECTED["hidden"])["prediction"],
    "segmenter": lambda model: model(IMAGES),
    "folded": lambda model: model(IMAGES),
}


def same(received, name):
    np.testing.assert_allclose(received, EXPECTED[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_keras_files(name):
    same(CALLS[name](keras.saving.load_model(FILES / f"{name}.keras")), name)


def test_detector():
    pytest.importorskip("keras_cv")
    model = keras.saving.load_model(FILES / "detector.keras")
    same(model(np.tile(IMAGES, (1, 2, 2, 1)))["classification"], "detector")


def test_training_goes_on():
    """Optimizer and schedule are in the file."""
    model = keras.saving.load_model(FILES / "classifier.keras")
    assert isinstance(model.optimizer, keras_cnv2.LayerDecayAdamW)
    assert int(model.optimizer.iterations) == 1
    model.fit(IMAGES, np.eye(3)[:1], verbose=0)
    assert int(model.optimizer.iterations) == 2


@pytest.mark.parametrize("suffix", [".weights.h5", ".safetensors"])
def test_weights(suffix):
    model = keras_cnv2.ConvNeXtV2((1, 1, 1, 1), (4, 8, 8, 8), classes=3, weights=FILES / f"classifier{suffix}")
    same(model(IMAGES), "classifier")


def answers(path):
    """What the signatures of a SavedModel are called and, of images, answer."""
    served = tf.saved_model.load(path).signatures
    images = served["serving_default"](images=tf.constant(IMAGES))
    return {name: signature.structured_outputs for name, signature in served.items()}, images


def test_saved_model(tmp_path):
    """An export of today has the same signatures, numbers and metadata."""
    keras_cnv2.export_saved_model(keras.saving.load_model(FILES / "classifier.keras"), tmp_path / "new", image_size=64)
    (names, images), (new_names, new_images) = answers(FILES / "saved_model"), answers(tmp_path / "new")
    same(images["probabilities"], "classifier")
    assert {name: {*outputs} for name, outputs in names.items()} == {n: {*outputs} for n, outputs in new_names.items()}
    np.testing.assert_allclose(new_images["probabilities"], images["probabilities"], rtol=1e-6)
    labels, metadata = "assets/labels.txt", "assets.extra/keras_cnv2.json"
    assert (tmp_path / "new" / labels).read_text() == (FILES / "saved_model" / labels).read_text()
    before, now = (json.loads((path / metadata).read_text()) for path in (FILES / "saved_model", tmp_path / "new"))
    assert before.items() <= now.items()


# The losses of both epochs, where nothing was interrupted.
RUNS = {
    "pretraining": (pretrain, pretraining(dims=(4, 4, 4, 4), decoder_dim=4), [0.9946939945220947, 0.993152916431427]),
    "finetuning": (finetune, finetuning(dims=(4, 4, 4, 4)), [1.0780912637710571, 1.0690722465515137]),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_go_on(name, monkeypatch, tmp_path):
    command, recipe, losses = RUNS[name]
    monkeypatch.setattr("training.commands.training_run.open_source", lambda *args, **kwargs: source())
    folder = shutil.copytree(FILES / "runs" / name, tmp_path / name)
    metrics = command.run(recipe, folder)
    assert metrics["parameters"] > 0
    history = (folder / "log.csv").read_text().splitlines()
    column = history[0].split(",").index("loss")
    np.testing.assert_allclose([float(row.split(",")[column]) for row in history[1:]], losses, rtol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_configurations_of_runs(name):
    """`--config` takes them; fields that came since have the values that such runs had."""
    recipe = RUNS[name][1]
    assert recipe_of(FILES / "runs" / name, type(recipe)) == recipe
