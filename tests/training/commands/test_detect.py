import dataclasses
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.docs.dense_example import run_example
from tests.training.data.boxes import small
from tests.training.runs_in_parts import assert_ends_after_its_export, assert_same_state, interrupt
from training.commands import detect
from training.recipes.detection import DETECTION

pytestmark = pytest.mark.slow
pytest.importorskip("keras_cv")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    small.write_voc(folder, train=10, validation=3)
    return dataclasses.replace(
        DETECTION["bccd"],
        data=str(folder),
        model=None,
        depths=(1, 1, 1, 1),
        dims=(4, 6, 8, 10),
        head_width=8,
        head_convs=1,
        image_size=64,
        batch_size=4,
        iterations=6,
        warmup_iterations=2,
        report_every=3,
        checkpoint_steps=2,
        drop_path=0.2,
        ema=0.5,
        score_threshold=0.0,
    )


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, detect.run(recipe, folder)


def test_leaves_behind(run):
    folder, metrics = run
    pictures = {"detections.png", "average_precisions.png", "learning_curves.png"}
    assert {"detector.keras", "metrics.json", "saved_model", *pictures} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert 0 <= metrics["AP"] <= metrics["AP50"] <= 1
    history = json.loads((folder / "log.json").read_text())
    assert [row["step"] for row in history] == [3, 6]
    assert history[0].keys() >= {"loss", "box_loss", "classification_loss", "val_loss"}


@pytest.mark.parametrize("package", ["pycocotools.cocoeval", "keras_cv"])
def test_missing_packages_are_told_before_the_training(recipe, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="pip install"):
        detect.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_example_of_the_docs(run, tmp_path):
    pixels = small.picture(small.objects_of(1))
    shape, scale, found = run_example(run[0], "detect", pixels, tmp_path, "image.shape", "float(scale)", "[*found]")
    assert shape == (512, 512, 3)
    assert scale == pytest.approx(512 / small.WIDTH)
    assert {*found} == {"boxes", "classes", "scores", "count"}


def test_exported_detector_is_the_model_s(run, recipe):
    from keras_cnv2.detection import Detector

    folder, _ = run
    model = keras.saving.load_model(folder / "detector.keras")
    assert model.image_size == recipe.image_size
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = Detector(model, recipe.nms, recipe.score_threshold, recipe.iou_threshold).predict(images, verbose=0)
    served = tf.saved_model.load(folder / "saved_model")
    found = served.signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_allclose(found["scores"].numpy(), expected["scores"], atol=1e-5)
    np.testing.assert_array_equal(found["count"].numpy(), expected["count"])


def test_resumed_run_ends_as_the_uninterrupted_one(run, recipe, tmp_path, monkeypatch):
    """In all that is its state; test_interrupted_after_its_export compares the figures that come of such a state."""
    monkeypatch.setattr("training.evaluation.detection.evaluate", lambda *arguments: {})
    monkeypatch.setattr(detect, "_written", lambda *arguments: {})
    parts = tmp_path / "parts"
    interrupt(monkeypatch, 5, lambda: detect.run(recipe, parts))
    detect.run(recipe, parts)
    assert_same_state(run[0], parts)


def test_interrupted_after_its_export(run, recipe, tmp_path):
    metrics = assert_ends_after_its_export(detect.run, recipe, run, tmp_path)
    assert metrics["AP"] == pytest.approx(run[1]["AP"], abs=1e-4)
