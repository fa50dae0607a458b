"""Runs of segmentation and detection, from data to exported model."""

import dataclasses
import json
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_cnv2.restore import restore_model
from tests.docs.dense_example import run_example
from tests.training.data.boxes import small as boxes
from tests.training.data.scenes import small as scenes
from tests.training.runs_in_parts import assert_ends_after_its_export, assert_same_state, interrupt
from training.commands.detect import Detect
from training.commands.segment import Segment
from training.commands.training_run import TrainingRun
from training.loop import state
from training.recipes.detection import DETECTION
from training.recipes.segmentation import SEGMENTATION

pytestmark = pytest.mark.slow

FIELDS = {
    "model": None,
    "depths": (1, 1, 1, 1),
    "dims": (4, 6, 8, 10),
    "head_width": 8,
    "batch_size": 4,
    "iterations": 6,
    "warmup_iterations": 2,
    "report_every": 3,
    "checkpoint_steps": 2,
    "drop_path": 0.2,
    "ema": 0.5,
}


def segmentation(folder):
    scenes.write_folder(folder)
    given = {"image_size": 32, "short_side": 40, "lr": 3e-3, "ignore_label": 255}
    return dataclasses.replace(SEGMENTATION["camvid"], data=str(folder), **FIELDS, **given)


def detection(folder):
    pytest.importorskip("keras_cv")
    boxes.write_voc(folder, train=10, validation=3)
    given = {"image_size": 64, "head_convs": 1, "score_threshold": 0.0}
    return dataclasses.replace(DETECTION["bccd"], data=str(folder), **FIELDS, **given)


@dataclasses.dataclass(frozen=True)
class Case:
    """A command, and what its run of `recipe(folder)` has.

    Args:
        command: The command.
        recipe: Function that writes data into a folder and returns a recipe for them.
        pictures: Figures, in addition to the learning curves.
        scores: Keys of metrics.json with the main score, and with one that is at least as high.
        logged: Keys of an epoch in log.json.
    """

    command: type[TrainingRun]
    recipe: Callable
    pictures: set
    scores: tuple
    logged: set


CASES = {
    "segment": Case(
        Segment,
        segmentation,
        {"overlays.png", "iou.png"},
        ("mean_iou", "pixel_accuracy"),
        {"loss", "mean_iou", "val_loss", "val_mean_iou"},
    ),
    "detect": Case(
        Detect,
        detection,
        {"detections.png", "average_precisions.png"},
        ("AP", "AP50"),
        {"loss", "box_loss", "classification_loss", "val_loss"},
    ),
}


# What both share with all trainings is tested before a release for the second: a run of it takes a minute. That the
# state of detection goes on, TestInParts of test_detect.py tests.
ONE = ["segment", pytest.param("detect", marks=pytest.mark.release)]


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory):
    """A function from a command's name to its recipe."""
    made = {}

    def recipe_of(name):
        if name not in made:
            made[name] = CASES[name].recipe(tmp_path_factory.mktemp("data"))
        return made[name]

    return recipe_of


@pytest.fixture(scope="module")
def run_of(recipe_of, tmp_path_factory):
    """A function from a command's name to folder and metrics of a whole run, which is made once."""
    made = {}

    def run_of(name):
        if name not in made:
            recipe, folder = recipe_of(name), tmp_path_factory.mktemp("runs") / "whole"
            made[name] = folder, CASES[name].command.run(recipe, folder)
        return made[name]

    return run_of


class TestBoth:
    @pytest.mark.parametrize("name", CASES)
    def test_leaves_behind(self, name, run_of):
        (folder, metrics), case = run_of(name), CASES[name]
        files = {case.command.model_file, "metrics.json", "learning_curves.png", "saved_model", *case.pictures}
        assert files <= {path.name for path in folder.iterdir()}
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        one, two = (metrics[score] for score in case.scores)
        assert 0 <= one <= two <= 1
        history = json.loads((folder / "log.json").read_text())
        assert [row["step"] for row in history] == [3, 6]
        assert history[0].keys() >= case.logged

    @pytest.mark.parametrize("name", CASES)
    def test_checkpoint_is_the_model(self, name, run_of):
        """With the averaged weights; the last one is of the end."""
        folder, _ = run_of(name)
        restored = restore_model(max(state.checkpoints(folder / "checkpoints").values()))
        saved = keras.saving.load_model(folder / CASES[name].command.model_file)
        assert restored.get_config() == saved.get_config()
        for one, two in zip(restored.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)

    @pytest.mark.parametrize("name", ONE)
    def test_resumed_run_ends_as_the_uninterrupted_one(self, name, recipe_of, run_of, tmp_path, monkeypatch):
        """In its whole state; test_interrupted_after_its_export compares the scores that come of such a state."""
        command, recipe, parts = CASES[name].command, recipe_of(name), tmp_path / "parts"
        monkeypatch.setattr(command, "evaluate", lambda run: {})
        monkeypatch.setattr(command, "write", lambda run, progress: {})
        interrupt(monkeypatch, 5, lambda: command.run(recipe, parts))
        command.run(recipe, parts)
        assert_same_state(run_of(name)[0], parts)

    @pytest.mark.parametrize("name", ONE)
    def test_interrupted_after_its_export(self, name, recipe_of, run_of, tmp_path):
        run, (score, _) = run_of(name), CASES[name].scores
        metrics = assert_ends_after_its_export(CASES[name].command.run, recipe_of(name), run, tmp_path)
        assert metrics[score] == pytest.approx(run[1][score], abs=1e-4)


class TestSegment:
    def test_example_of_the_docs(self, run_of, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), "uint8")
        expressions = "keras.ops.convert_to_numpy(classes)", "model.class_names"
        classes, names = run_example(run_of("segment")[0], "segment", pixels, tmp_path, *expressions)
        assert classes.shape == (50, 70)
        assert 0 <= classes.min() <= classes.max() < len(names)

    def test_exported_class_map_is_the_model_s(self, run_of):
        folder, _ = run_of("segment")
        model = keras.saving.load_model(folder / "segmenter.keras")
        images = np.random.default_rng(0).uniform(0, 255, (2, 48, 64, 3)).astype("float32")
        served = tf.saved_model.load(folder / "saved_model")
        classes = served.signatures["serving_default"](images=tf.constant(images))["class_map"].numpy()
        logits = model.predict(images, verbose=0)
        best = np.sort(logits, axis=-1)
        clear = best[..., -1] - best[..., -2] > 1e-4
        np.testing.assert_array_equal(classes[clear], logits.argmax(-1)[clear])


class TestDetect:
    @pytest.mark.parametrize("package", ["pycocotools.cocoeval", "keras_cv"])
    def test_missing_packages_are_told_before_the_training(self, recipe_of, tmp_path, monkeypatch, package):
        recipe = recipe_of("detect")
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match="pip install"):
            Detect.run(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_example_of_the_docs(self, run_of, tmp_path):
        folder, _ = run_of("detect")
        pixels = boxes.picture(boxes.objects_of(1))
        shape, scale, found = run_example(folder, "detect", pixels, tmp_path, "image.shape", "float(scale)", "[*found]")
        assert shape == (512, 512, 3)
        assert scale == pytest.approx(512 / boxes.WIDTH)
        assert {*found} == {"boxes", "classes", "scores", "count"}

    def test_exported_detector_is_the_model_s(self, recipe_of, run_of):
        from keras_cnv2.detection import Detector

        recipe, (folder, _) = recipe_of("detect"), run_of("detect")
        model = keras.saving.load_model(folder / "detector.keras")
        assert model.image_size == recipe.image_size
        images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
        expected = Detector(model, recipe.nms, recipe.score_threshold, recipe.iou_threshold).predict(images, verbose=0)
        served = tf.saved_model.load(folder / "saved_model")
        found = served.signatures["serving_default"](images=tf.constant(images))
        np.testing.assert_allclose(found["scores"].numpy(), expected["scores"], atol=1e-5)
        np.testing.assert_array_equal(found["count"].numpy(), expected["count"])
