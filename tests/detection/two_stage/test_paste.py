import keras
import numpy as np
import pytest
from keras import ops

from keras_cnv2.detection import paste_masks

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "torch", reason="Mask R-CNN is for TensorFlow and JAX"),
]

BOXES = np.float32([[[2.3, 3.9, 17.2, 11.4], [-4, -2, 9, 40], [5, 5, 6, 6]]])


def at_centres(mask, box, height, width):
    """mmdetection's rule: linear interpolation at the centres of pixels, between a border of zeros."""
    left, top, right, bottom = box
    size = len(mask)
    padded = np.pad(mask, 1)
    pasted = np.zeros((height, width))
    for row, column in np.ndindex(height, width):
        y = (row + 0.5 - top) / (bottom - top) * size - 0.5
        x = (column + 0.5 - left) / (right - left) * size - 0.5
        if -1 < y < size and -1 < x < size:
            i, j = int(np.floor(y)) + 1, int(np.floor(x)) + 1
            a, b = y - np.floor(y), x - np.floor(x)
            upper = padded[i, j] * (1 - b) + padded[i, j + 1] * b
            pasted[row, column] = upper * (1 - a) + (padded[i + 1, j] * (1 - b) + padded[i + 1, j + 1] * b) * a
    return pasted


def test_centres():
    masks = np.random.default_rng(0).uniform(size=(1, 3, 6, 6)).astype("float32")
    pasted = ops.convert_to_numpy(paste_masks(*map(ops.convert_to_tensor, (masks, BOXES)), 20, 30))
    for number, box in enumerate(BOXES[0]):
        np.testing.assert_allclose(pasted[0, number], at_centres(masks[0, number], box, 20, 30), atol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
def test_a_full_mask_fills_its_box(padded):
    """With torchvision's whole pixels it may be larger by one."""
    boxes = np.float32([[[4, 6, 20, 12]]])
    pasted = paste_masks(*map(ops.convert_to_tensor, (np.ones((1, 1, 28, 28), "float32"), boxes)), 16, 24, padded)
    rows, columns = np.nonzero(ops.convert_to_numpy(pasted)[0, 0] > 0.6)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert len(rows) == (found[2] - found[0]) * (found[3] - found[1])
    np.testing.assert_allclose(found, boxes[0, 0], atol=1 if padded else 0)


def test_boxes_without_area_are_empty():
    boxes = np.float32([[[10, 10, 10, 10], [-1, -1, -1, -1], [4, 4, 4, 9]]])
    for padded in (True, False):
        pasted = paste_masks(*map(ops.convert_to_tensor, (np.ones((1, 3, 6, 6), "float32"), boxes)), 16, 24, padded)
        assert not ops.convert_to_numpy(pasted).any()
