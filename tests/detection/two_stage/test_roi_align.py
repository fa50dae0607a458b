import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_cnv2.detection.two_stage.roi_align import MOST_SAMPLES, level_of, roi_align

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "torch", reason="Mask R-CNN is for TensorFlow and JAX"),
]


def bilinear(feature_map, y, x):
    """The value at a position, one sample: zeros from one position beyond the border on."""
    height, width = feature_map.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0 * feature_map[0, 0]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = feature_map[top, left] * (left + 1 - x) + feature_map[top, right] * (x - left)
    lower = feature_map[bottom, left] * (left + 1 - x) + feature_map[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def by_hand(feature_map, box, size, stride, samples, aligned):
    left, top, right, bottom = np.asarray(box, "float64") / stride - 0.5 * aligned
    width, height = right - left, bottom - top
    if not aligned:
        width, height = max(width, 1), max(height, 1)
    rows = samples or max(int(np.ceil(height / size)), 1)
    columns = samples or max(int(np.ceil(width / size)), 1)
    found = np.zeros((size, size, feature_map.shape[-1]))
    for i, j in np.ndindex(size, size):
        y = [top + (i + (r + 0.5) / rows) * height / size for r in range(rows)]
        x = [left + (j + (c + 0.5) / columns) * width / size for c in range(columns)]
        values = [bilinear(feature_map, *position) for position in itertools.product(y, x)]
        found[i, j] = np.mean(values, axis=0)
    return found


BOXES = np.float32([[[3, 5, 60, 41], [-9, 30, 140, 130], [20, 20, 20.5, 21], [127, 90, 128, 96]]])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 2, 3])
def test_it_is_that_of_brute_force(samples, aligned):
    feature_map = np.random.default_rng(0).normal(size=(1, 24, 32, 3)).astype("float32")
    ours = roi_align([feature_map], ops.convert_to_tensor(BOXES), np.zeros((1, 4), "int32"), [4], 5, samples, aligned)
    for number, box in enumerate(BOXES[0]):
        expected = by_hand(feature_map[0], box, 5, 4, samples, aligned)
        np.testing.assert_allclose(ops.convert_to_numpy(ours)[0, number], expected, atol=1e-5)


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False, jit_compile=True)


def test_bins_of_whole_positions_are_not_rounded_up_when_compiled():
    """Compilers multiply by 1 / 7: 42 positions, those of P5 in images of 1344 pixels, were 6.0000005 for each bin."""
    feature_map = np.random.default_rng(0).normal(size=(1, 42, 56, 2)).astype("float32")
    box = np.float32([[[0, 0, 56, 42]]])
    ours = compiled(lambda x, b: roi_align([x], b, np.zeros((1, 1), "int32"), [1], 7, 0, aligned=False))
    found = ops.convert_to_numpy(ours(feature_map, box))[0, 0]
    np.testing.assert_allclose(found, by_hand(feature_map[0], box[0, 0], 7, 1, 0, False), atol=1e-5)


@pytest.mark.parametrize("positions", [MOST_SAMPLES, MOST_SAMPLES + 1, 3 * MOST_SAMPLES])
def test_bins_of_more_positions_than_samples_are_approximate(positions):
    """Up to `MOST_SAMPLES` positions along a side of a bin are exact; of more, not all count in an average of noise."""
    side = 2 * positions
    feature_map = np.random.default_rng(0).normal(size=(1, side, side, 8)).astype("float32")
    box = np.float32([[[0, 0, side, side]]])
    ours = roi_align([feature_map], ops.convert_to_tensor(box), np.zeros((1, 1), "int32"), [1], 2)
    error = np.abs(ops.convert_to_numpy(ours)[0, 0] - by_hand(feature_map[0], box[0, 0], 2, 1, 0, True)).max()
    assert (error < 1e-5) if positions <= MOST_SAMPLES else (1e-3 < error < 0.3)


def test_each_box_is_of_its_level():
    maps = [np.full((1, 32 // 2**level, 32 // 2**level, 1), level + 1, "float32") for level in range(4)]
    boxes = np.float32(
        [[[10, 10, 60, 60], [0, 0, 112, 112], [0, 0, 111.9, 111.9], [0, 0, 447, 449], [0, 0, 1000, 900]]]
    )
    levels = level_of(ops.convert_to_tensor(boxes))
    np.testing.assert_array_equal(ops.convert_to_numpy(levels), [[0, 1, 0, 2, 3]])
    ours = roi_align(maps, ops.convert_to_tensor(boxes / 10), levels, [4, 8, 16, 32], 2)
    np.testing.assert_allclose(ops.convert_to_numpy(ours)[0, :, 0, 0, 0], [1, 2, 1, 3, 4], rtol=1e-5)
