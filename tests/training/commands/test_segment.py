import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.restore import restore_model
from tests.docs.dense_example import run_example
from tests.training.data.scenes import small as scenes
from tests.training.runs_in_parts import assert_ends_after_its_export, assert_same_state, interrupt
from training.commands import segment
from training.loop import state
from training.recipes.segmentation import SEGMENTATION

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write_folder(folder)
    return dataclasses.replace(
        SEGMENTATION["camvid"],
        data=str(folder),
        model=None,
        depths=(1, 1, 1, 1),
        dims=(4, 6, 8, 10),
        head_width=8,
        image_size=32,
        short_side=40,
        batch_size=4,
        lr=3e-3,
        iterations=6,
        warmup_iterations=2,
        report_every=3,
        checkpoint_steps=2,
        ignore_label=255,
        drop_path=0.2,
        ema=0.5,
    )


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, segment.run(recipe, folder)


def test_leaves_behind(run, recipe):
    folder, metrics = run
    files = {"segmenter.keras", "metrics.json", "overlays.png", "iou.png", "learning_curves.png", "saved_model"}
    assert files <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert 0 <= metrics["mean_iou"] <= metrics["pixel_accuracy"] <= 1
    history = json.loads((folder / "log.json").read_text())
    assert [row["step"] for row in history] == [3, 6]
    assert history[0].keys() >= {"loss", "mean_iou", "val_loss", "val_mean_iou"}


def test_example_of_the_docs(run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), "uint8")
    expressions = "keras.ops.convert_to_numpy(classes)", "model.class_names"
    classes, names = run_example(run[0], "segment", pixels, tmp_path, *expressions)
    assert classes.shape == (50, 70)
    assert 0 <= classes.min() <= classes.max() < len(names)


def test_checkpoint_is_the_model(run):
    """With the averaged weights; the last one is of the end."""
    folder, _ = run
    restored = restore_model(max(state.checkpoints(folder / "checkpoints").values()))
    saved = keras.saving.load_model(folder / "segmenter.keras")
    assert restored.get_config() == saved.get_config()
    for one, two in zip(restored.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_exported_class_map_is_the_model_s(run):
    folder, _ = run
    model = keras.saving.load_model(folder / "segmenter.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 48, 64, 3)).astype("float32")
    served = tf.saved_model.load(folder / "saved_model")
    classes = served.signatures["serving_default"](images=tf.constant(images))["class_map"].numpy()
    logits = model.predict(images, verbose=0)
    best = np.sort(logits, axis=-1)
    clear = best[..., -1] - best[..., -2] > 1e-4
    np.testing.assert_array_equal(classes[clear], logits.argmax(-1)[clear])


def test_resumed_run_ends_as_the_uninterrupted_one(run, recipe, tmp_path, monkeypatch):
    """In all that is its state; test_interrupted_after_its_export compares the figures that come of such a state."""
    monkeypatch.setattr("training.evaluation.segmentation.evaluate", lambda *arguments: {})
    monkeypatch.setattr(segment, "_written", lambda *arguments: {})
    parts = tmp_path / "parts"
    interrupt(monkeypatch, 5, lambda: segment.run(recipe, parts))
    segment.run(recipe, parts)
    assert_same_state(run[0], parts)


def test_interrupted_after_its_export(run, recipe, tmp_path):
    metrics = assert_ends_after_its_export(segment.run, recipe, run, tmp_path)
    assert metrics["mean_iou"] == pytest.approx(run[1]["mean_iou"], abs=1e-4)
