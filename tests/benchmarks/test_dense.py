import dataclasses

import numpy as np
import pytest

from benchmarks import dense
from training.models.build import new_detector, new_segmenter
from training.recipes.detection import DETECTION
from training.recipes.segmentation import SEGMENTATION


def test_contestants_have_one_budget():
    recipe = dataclasses.replace(SEGMENTATION["camvid"], weights="run")
    runs = dense.contestants(recipe)
    assert {name: row.weights for name, (row, _) in runs.items()} == {
        "scratch": None,
        "resnet": None,
        "pretrained": "run",
    }
    for row, _ in runs.values():
        same = ("iterations", "batch_size", "image_size", "lr", "scale", "head_width", "weight_decay", "seed")
        assert all(getattr(row, name) == getattr(recipe, name) for name in same)


def test_rows():
    segmented = {"mean_iou": 0.5, "pixel_accuracy": 0.9, "parameters": 1000, "seconds": 90.0}
    assert dense.row("ours", segmented).split("  ")[-1] == (
        "mean_iou 50.0%, pixel_accuracy 90.0%; 1,000 parameters, 1.5 minutes"
    )
    detected = {"AP": 0.25, "AP50": 0.5, "AP75": 0.2, "parameters": 1000, "seconds": 60.0}
    assert "AP 25.0%, AP50 50.0%, AP75 20.0%; " in dense.row("ours", detected)


@pytest.mark.slow
def test_resnet_fits_the_heads():
    pytest.importorskip("keras_cv")
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    segmenter = new_segmenter(SEGMENTATION["camvid"], dense.resnet(), ("a", "b"))
    assert segmenter(images).shape == (1, 64, 64, 2)
    assert segmenter.backbone.count_params() == pytest.approx(3.5e6, rel=0.02)
    detector = new_detector(DETECTION["bccd"], dense.resnet(), ("a", "b"))
    assert {*detector(images)} == {"box", "classification"}
