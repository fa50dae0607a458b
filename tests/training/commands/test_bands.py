"""Twelve bands of 16 bits, as satellites have them, all the way through pre-training, fine-tuning and evaluation."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import training
from tests.training.small import COMMON
from training.commands.evaluation import completed
from training.commands.scaling import like_weights, scaling_of
from training.data.images.values import as_pixels
from training.recipes.detection import DETECTION
from training.recipes.images import FINETUNING
from training.recipes.segmentation import SEGMENTATION
from training.runs.folder import open_run

FIELDS = {name: value for name, value in COMMON.items() if name not in ("deterministic", "data", "base_lr")}


def write(path, count, seed):
    """Of two classes, of which one reflects more in every other band."""
    labels = np.arange(count) % 2
    means = np.arange(12) * 300 + 1000 + np.where(labels[:, None], np.arange(12) % 2 * 150, 0)
    images = np.random.default_rng(seed).normal(means[:, None, None], 20, (count, 16, 16, 12)).astype("uint16")
    np.savez(path, train_images=images, train_labels=labels)
    return path


@pytest.mark.slow
def test_from_pretraining_to_evaluation(tmp_path, caplog):
    path = write(tmp_path / "bands.npz", 32, 0)
    given = {"runs": tmp_path, "data": path, **FIELDS}
    pretrained, figures = training.pretrain(name="one", weights=None, base_lr=0.03, decoder_dim=8, **given)
    assert np.isfinite(figures["loss"])
    tuned, figures = training.finetune(name="two", weights=pretrained, base_lr=0.3, **given)
    assert keras.saving.load_model(tuned / "classifier.keras").input_shape[-1] == 12
    assert "images of 12 channels: training without RandAugment" in caplog.text
    assert figures["top1"] == 1
    # One class alone: by statistics of its own either class looks the same.
    alone = [of_class(label, tmp_path / f"{label}.npz") for label in (0, 1)]
    assert [training.evaluate(weights=tuned, data=path)["top1"] for path in alone] == [1, 1]
    for label, path in enumerate(alone):  # what docs/finetune.md does with arrays
        with np.load(path) as file:
            pixels, *_ = as_pixels("bands", file["test_images"], None, **scaling_of(tuned))
        best = keras.saving.load_model(tuned / "classifier.keras").predict(pixels, verbose=0).argmax(-1)
        assert {*best} == {label}
    (tmp_path / "classifier.keras").write_bytes((tuned / "classifier.keras").read_bytes())  # which tells nothing of it
    own = [training.evaluate(weights=tmp_path / "classifier.keras", data=path)["top1"] for path in alone]
    assert sum(own) < 1.5


def of_class(label, path):
    """Images of one class to evaluate on, and to train on, where one label must be another."""
    with np.load(write(path, 16, 1)) as file:
        images = file["train_images"][file["train_labels"] == label]
    labels = np.full(8, label)
    np.savez(path, train_images=images, train_labels=[1 - label, *labels[1:]], test_images=images, test_labels=labels)
    return path


@pytest.fixture
def run(tmp_path):
    """The folder of a run that took mean and deviation from its data."""
    found = {"mean": [1000.0, 2000.0], "deviation": [10.0, 20.0]}
    (tmp_path / "run").mkdir()
    content = {"kind": "Finetuning", "data": "a.npz", "scale": None, "mean": None, "deviation": None, "found": found}
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    return tmp_path / "run"


def test_training_goes_on_with_the_scale_of_its_weights(run, caplog):
    recipe = dataclasses.replace(FINETUNING["images"], weights=str(run), data="b.npz")
    taken = like_weights(recipe)
    assert (taken.mean, taken.deviation) == ((1000.0, 2000.0), (10.0, 20.0))
    assert f"as in {run}, the run of these weights: --mean 1000,2000 --deviation 10,20" in caplog.text
    caplog.clear()
    assert like_weights(taken) == taken
    for other in (dataclasses.replace(recipe, data="pictures"), dataclasses.replace(recipe, weights="fcmae")):
        assert like_weights(other) == other
    assert not caplog.text
    own = dataclasses.replace(recipe, scale=4095.0)
    assert like_weights(own) == own
    assert f"values are scaled by --scale 4095, but in {run} by --mean 1000,2000 --deviation 10,20" in caplog.text


def test_scaled_as_in_the_run(run):
    scaling = {"mean": (1000.0, 2000.0), "deviation": (10.0, 20.0)}
    given = {"weights": str(run), "data": "b.npz"}
    assert completed(given) == {**given, **scaling}
    assert completed({"data": "b.npz"}, run) == {**given, **scaling}
    (run / "checkpoints").mkdir()
    for weights in (run / "classifier.keras", run / "checkpoints" / "step-0000000001.safetensors"):
        weights.touch()
        assert completed({**given, "weights": str(weights)})["mean"] == scaling["mean"]
    assert completed({**given, "weights": [str(run), "others"]})["mean"] == scaling["mean"]  # as in `analyze`
    for others in ({"data": "pictures"}, {"scale": 4095.0}, {"mean": (1.0, 2.0), "deviation": (3.0, 4.0)}):
        assert completed({**given, **others}) == {**given, **others}
    assert completed({"scale": 4095.0}, run) == {"weights": str(run), "data": "a.npz", "scale": 4095.0}


@pytest.mark.parametrize("recipe", [SEGMENTATION["camvid"], DETECTION["bccd"]])
def test_scale_of_sizes_is_none_of_values(recipe, tmp_path):
    open_run(tmp_path / "dense", recipe, {})
    assert scaling_of(tmp_path / "dense") == {}
