import keras
import numpy as np
import pytest
from keras import ops

from keras_cnv2.detection.two_stage.roi_align import level_of, roi_align
from keras_cnv2.detection.two_stage.roi_windows import BOXES, roi_align_in_windows, window_positions

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "torch", reason="Mask R-CNN is for TensorFlow and JAX"),
]

STRIDES = (4, 8, 16, 32)


def boxes_of_all_kinds(height, width, number):
    """Square, long, tiny and large boxes, some beyond the image, and all that have the largest area of their level."""
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(np.log(0.1), np.log(1.5 * max(height, width)), (2, number, 2)))
    length = np.linspace(1, width, number // 4)
    sides[:, : len(length)] = np.stack([length, (112**2 - 1) / length], axis=-1)
    sides[:, len(length) : 2 * len(length)] = np.stack([length, (224**2 - 1) / length], axis=-1)
    centres = random.uniform(0, 1, (2, number, 2)) * [width, height]
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).astype("float32")


@pytest.mark.parametrize("number", [7, 2 * BOXES + 3])
@pytest.mark.parametrize(("samples", "aligned"), [(0, True), (2, False)])
def test_it_is_roi_align(samples, aligned, number):
    random = np.random.default_rng(1)
    maps = [random.normal(size=(2, 192 // stride, 320 // stride, 3)).astype("float32") for stride in STRIDES]
    boxes = ops.convert_to_tensor(boxes_of_all_kinds(192, 320, number))
    ours = roi_align_in_windows(maps, boxes, STRIDES, 5, samples, aligned)
    expected = roi_align(maps, boxes, level_of(boxes), STRIDES, 5, samples, aligned)
    assert tuple(ours.shape) == (2, number, 5, 5, 3)
    # Float32 rounds positions up to 80 by 4e-6 at a time, and values of neighbours differ by up to 8.
    np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(expected), atol=5e-5)


@pytest.mark.parametrize("shapes", [[(16, 8)], [(128, 128), (64, 64), (32, 32), (16, 16)]])
def test_windows_have_fewer_positions_than_levels(shapes):
    """The last level has boxes of any size; a box of another one covers at most 28 x 28 positions and its border."""
    assert window_positions(np.array(shapes), STRIDES) == {1: 16 * 8, 4: 9 * 128}[len(shapes)]
