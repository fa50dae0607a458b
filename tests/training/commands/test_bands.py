"""Twelve bands of 16 bits, as satellites have them, all the way through pre-training, fine-tuning and evaluation."""

import json

import keras
import numpy as np
import pytest

import training
from tests.training.small import COMMON
from training.commands.evaluate import completed

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
    assert "images of 12 channels: trained without RandAugment" in caplog.text
    assert figures["top1"] == 1
    # One class alone: by statistics of its own either class looks the same.
    alone = [of_class(label, tmp_path / f"{label}.npz") for label in (0, 1)]
    assert [training.evaluate(weights=tuned, data=path)["top1"] for path in alone] == [1, 1]
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


def test_scaled_as_in_the_run(run):
    scaling = {"mean": (1000.0, 2000.0), "deviation": (10.0, 20.0)}
    given = {"weights": str(run), "data": "b.npz"}
    assert completed(given) == {**given, **scaling}
    assert completed({"data": "b.npz"}, run) == {**given, **scaling}
    for others in ({"data": "pictures"}, {"scale": 4095.0}, {"mean": (1.0, 2.0), "deviation": (3.0, 4.0)}):
        assert completed({**given, **others}) == {**given, **others}
    assert completed({"scale": 4095.0}, run) == {"weights": str(run), "data": "a.npz", "scale": 4095.0}
