import itertools

import numpy as np
import pytest
from PIL import Image

from tests.training.data.scenes.small import scene
from training.drawing.segmentation import class_colours, iou_chart, overlay, segmentations


@pytest.mark.parametrize("count", [1, 3, 11, 21, 150, 255])
def test_colours_are_apart_and_always_the_same(count):
    colours = class_colours(count)
    assert (colours.shape, colours.dtype) == ((count, 3), "uint8")
    distances = [np.abs(one - two).max() for one, two in itertools.combinations(colours.astype(int), 2)]
    assert min(distances, default=255) >= (60 if count <= 21 else 2)
    np.testing.assert_array_equal(class_colours(count + 5)[:count], colours)


def test_overlay():
    pixels, labels = scene(0)
    classes = np.where(labels == 255, -1, labels.astype(int))
    shown = overlay(pixels, classes)
    for place in ((0, 0), (20, 5), (29, 39)):
        number, pixel = classes[place], pixels[place].astype(float)
        expected = pixel.mean() / 2 if number < 0 else 0.65 * class_colours(3)[number] + 0.35 * pixel
        np.testing.assert_allclose(shown[place], np.broadcast_to(expected, 3), atol=0.51)


def test_files(tmp_path):
    scenes = [scene(0), scene(1, 60, 20)]
    images, labels = zip(*scenes)
    predictions = [np.minimum(numbers, 1).astype("int32") for numbers in labels]
    segmentations(tmp_path / "overlays.png", images, labels, predictions, ["road", "car", "sky"])
    iou_chart(tmp_path / "iou.png", {"road": 0.5, "car": None, "sky": 0.25}, 0.375)
    for name in ("overlays.png", "iou.png"):
        assert len(np.unique(Image.open(tmp_path / name).convert("L"))) > 20
