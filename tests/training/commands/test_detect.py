"""Runs of Mask R-CNN and Faster R-CNN on pages of digits, with eager steps: tracing takes longer than all of them."""

import dataclasses
import json

import numpy as np
import pytest

import training
from keras_cnv2.detection import Detector
from tests.training.runs_in_parts import assert_same_state, interrupt
from training.commands.detect import Detect
from training.data.boxes.digits import DigitPages
from training.data.boxes.task import Boxes
from training.loop import state
from training.recipes.detection import DETECTION

TINY = {
    "model": None,
    "depths": (1, 1, 1, 1),
    "dims": (4, 6, 8, 10),
    "image_size": 64,
    "head_width": 8,
    "head_convs": 1,
    "head_units": 8,
    "proposals": 10,
    "anchor_samples": 16,
    "box_samples": 8,
    "batch_size": 4,
    "iterations": 2,
    "report_every": 1,
    "warmup_iterations": 1,
    "score_threshold": 0.0,
}
LOSSES = ("objectness_loss", "proposal_loss", "class_loss", "box_loss", "mask_loss")
FIGURES = ("AP", "AP50", "AP75", "APS", "AR100")


class EagerDetector(Detector):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.compile(run_eagerly=True)


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Eager steps on ten pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detect, "fit_arguments", lambda run: {"run_eagerly": True})
        patch.setattr("training.commands.detect.Detector", EagerDetector)
        patch.setattr(DigitPages.__init__, "__defaults__", ((8, 2), 0))
        yield


def test_digits_with_masks(tmp_path, monkeypatch, quick_pictures):
    """The Python call, from data made offline to figures of boxes and masks; trained on whole validation pages."""

    def whole_pages(source, recipe, *_):
        batches = source.validation(recipe, 2).map(lambda images, labels, weights: (images, labels))
        return batches.repeat()

    monkeypatch.setattr(Boxes, "training", whole_pages)
    monkeypatch.setattr(Detect, "export", lambda run: None)
    fields = {**TINY, "iterations": 1, "batch_size": 2, "warmup_iterations": 0}
    folder, metrics = training.detect(recipe="digits", data="digits", head="mask_rcnn", runs=tmp_path, **fields)
    files = {"detector.keras", "detections.png", "average_precisions.png", "learning_curves.png", "metrics.json"}
    assert files <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert metrics["images"] == 2
    for name in FIGURES:
        assert 0 <= metrics[name] <= 1
        assert 0 <= metrics[f"mask_{name}"] <= 1
    assert {*metrics["classes"]} == {*metrics["mask_classes"]} == {*"0123456789"}
    for row in json.loads((folder / "log.json").read_text()):
        for part in ("", "val_"):
            losses = [row[part + name] for name in LOSSES]
            assert np.all(np.isfinite(losses))
            assert row[f"{part}loss"] == pytest.approx(sum(losses), rel=1e-4)
    assert Detect.summary(metrics).splitlines()[0].split() == ["boxes", "masks"]


@pytest.mark.slow
class TestInParts:
    FIELDS = {**TINY, "iterations": 4, "report_every": 2, "checkpoint_steps": 2}
    RECIPES = {
        "mask_rcnn": {"accumulation": 2, "ema": 0.5, "drop_path": 0.2},
        "faster_rcnn": {"dtype": "mixed_bfloat16"},
    }

    @pytest.mark.parametrize("head", [pytest.param("mask_rcnn", marks=pytest.mark.release), "faster_rcnn"])
    def test_resumed_run_ends_as_the_uninterrupted_one(self, head, tmp_path, monkeypatch, quick_pictures):
        """In its whole state: the draws of samples go on where they were."""
        recipe = dataclasses.replace(DETECTION["digits"], head=head, **self.FIELDS, **self.RECIPES[head])
        monkeypatch.setattr(Detect, "evaluate", lambda run: {})
        monkeypatch.setattr(Detect, "write", lambda run, progress: {})
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        Detect.run(recipe, whole)
        interrupt(monkeypatch, 3, lambda: Detect.run(recipe, parts))
        assert max(state.checkpoints(parts / "checkpoints")) == 2
        Detect.run(recipe, parts)
        assert_same_state(whole, parts)


@pytest.mark.slow
def test_faster_rcnn_has_no_masks(tmp_path, quick_pictures):
    """And is exported."""
    recipe = dataclasses.replace(DETECTION["digits"], head="faster_rcnn", **TINY)
    metrics = Detect.run(recipe, tmp_path / "run")
    assert not [name for name in metrics if name.startswith("mask_")]
    assert (tmp_path / "run" / "saved_model" / "saved_model.pb").exists()
    assert metrics.keys() >= {"AP", "classes"}
    assert {*json.loads((tmp_path / "run" / "log.json").read_text())[0]} >= {*LOSSES[:4]}
