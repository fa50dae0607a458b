"""Random boxes in an image, and the pixels within a box. Imports no TensorFlow."""

import math

import keras
from keras import ops

# How many boxes are drawn; the first that fits into the image is used.
ATTEMPTS = 10


def random_boxes(shape, height, width, area, ratio, draws, margin=0):
    """Draws random boxes within an image.

    Args:
        shape: Shape of the batch of boxes.
        height, width: Size of the image in pixels, float scalars.
        area: Least and greatest share of the image, uniform.
        ratio: Least and greatest width / height, log-uniform.
        draws: `Draws`.
        margin: Number of pixels by which a box must be smaller than the image, in height and in width.

    Returns:
        Top, left, height and width in whole pixels, float32 `(*shape, 4)`: the first of `ATTEMPTS` boxes that fits, or
        zeros if none fits.
    """
    area_at, ratio_at, top_at, left_at = ops.unstack(
        keras.random.uniform((*shape, ATTEMPTS, 4), dtype="float32", seed=draws), 4, axis=-1
    )
    pixels = height * width * (area[0] + (area[1] - area[0]) * area_at)
    ratios = ops.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * ratio_at)
    heights, widths = ops.round(ops.sqrt(pixels / ratios)), ops.round(ops.sqrt(pixels * ratios))
    tops, lefts = ops.floor(top_at * (height - heights + 1)), ops.floor(left_at * (width - widths + 1))
    fits = (heights >= 1) & (heights <= height - margin) & (widths >= 1) & (widths <= width - margin)
    first = fits & (ops.cumsum(ops.cast(fits, "int32"), axis=-1) == 1)
    boxes = ops.stack([tops, lefts, heights, widths], axis=-1)
    return ops.sum(ops.where(first[..., None], boxes, 0.0), axis=-2)


def within(height, width, top, left, bottom, right):
    """Returns which pixels lie in a box: bools `(height, width, 1)`."""
    rows, columns = (ops.arange(side, dtype="float32") for side in (height, width))
    rows, columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return rows[:, None, None] & columns[None, :, None]
