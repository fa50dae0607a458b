"""The anchors of the proposal network: three for each position of the levels P2 to P6."""

import math

import numpy as np

from keras_cnv2.detection.anchors import RATIOS

# Levels of the pyramid, with their strides in pixels.
LEVELS = ("P2", "P3", "P4", "P5", "P6")
STRIDES = (4, 8, 16, 32, 64)


def anchors_of(height, width, scale=8.0, rounded=False):
    """Returns the anchors of each level for images of this height and width.

    Args:
        height, width: Ints, in pixels.
        scale: Float, the side of each level's square anchors in strides of the level: 8 gives 32 to 512 pixels. The
            other anchors have the same area and are half or twice as high as wide.
        rounded: Bool, whether the sides of the anchors at the origin are rounded to whole numbers.

    Returns:
        List of float32 arrays `(positions * 3, 4)` in "xyxy" format, row by row, one for each level. The first position
        is at the upper left corner of the image.

    Source: Feature Pyramid Networks (arXiv 1612.03144), section 4.1.
    """
    heights = np.sqrt(np.float32(RATIOS))
    shapes = np.stack([-1 / heights, -heights, 1 / heights, heights], axis=-1) / 2
    anchors = []
    for stride in STRIDES:
        at_origin = shapes * (scale * stride)
        at_origin = np.round(at_origin) if rounded else at_origin
        y, x = np.meshgrid(*(stride * np.arange(math.ceil(side / stride)) for side in (height, width)), indexing="ij")
        positions = np.stack([x, y, x, y], axis=-1)[:, :, None]
        anchors.append((positions + at_origin).reshape(-1, 4).astype("float32"))
    return anchors
