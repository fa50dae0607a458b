"""RoIAlign for prediction: reads only the part of a feature map that lies below a box.

`roi_align` multiplies whole feature maps, which is faster in training, where its gradient is a product, too. Without a
gradient, windows take half of the time and a fraction of the memory.
"""

import math

import numpy as np
from keras import ops

from keras_cnv2.detection.two_stage.roi_align import axis_weights, largest_side, level_of

# The largest number of boxes of an image whose windows are in memory at the same time.
BOXES = 128


def roi_align_in_windows(features, boxes, strides, size, samples=0, aligned=True):
    """Samples the features of boxes, each from its level of the pyramid (`level_of`); otherwise see `roi_align`.

    The window of a box has the positions that its samples need, row by row. The boxes of a level have a bounded area,
    so that a static number of positions holds long windows as well as square ones.

    Args:
        features: List of float tensors `(N, H, W, C)`, one for each level.
        boxes: Float32 tensor `(N, R, 4)` in "xyxy" format, in pixels of the image, with a static R.
        strides: List of numbers, the strides of the levels.
        size, samples, aligned: As in `roi_align`.

    Returns:
        A tensor `(N, R, size, size, C)` of the features' dtype.
    """
    shapes = np.array([level.shape[1:3] for level in features], "int32")
    channels = features[0].shape[-1]
    # All positions of all levels and images, one a row.
    values = [ops.reshape(level, (-1, math.prod(level.shape[1:3]), channels)) for level in features]
    values = ops.reshape(ops.concatenate(values, axis=1), (-1, channels))

    def sampled(boxes):
        numbers, *weights = _windows(boxes, shapes, strides, size, samples, aligned)
        rows, columns = (ops.cast(axis, values.dtype) for axis in weights)
        weights = ops.reshape(rows[..., None] * columns[..., None, :], (-1, *columns.shape[1:3], size**2))
        return ops.einsum("nrpb,nrpc->nrbc", weights, ops.take(values, numbers, axis=0))

    count = boxes.shape[1]
    chunks = -(-count // BOXES)
    if chunks > 1:
        boxes = ops.pad(boxes, ((0, 0), (0, chunks * BOXES - count), (0, 0)))
        boxes = ops.transpose(ops.reshape(boxes, (-1, chunks, BOXES, 4)), (1, 0, 2, 3))
        found = ops.transpose(ops.map(sampled, boxes), (1, 0, 2, 3, 4))
    else:
        found = sampled(boxes)
    return ops.reshape(found, (-1, max(count, chunks * BOXES * (chunks > 1)), size, size, channels))[:, :count]


def window_positions(shapes, strides):
    """Returns the largest number of positions in the window of a box.

    Args:
        shapes: Int array `(levels, 2)`, heights and widths of the levels.
        strides: List of numbers, the strides of the levels.
    """
    most = 1
    for level, ((height, width), stride) in enumerate(zip(shapes.tolist(), strides)):
        area = (largest_side(level, len(shapes)) / stride) ** 2
        for columns in range(1, width + 1):
            # A length L reaches into at most ceil(L) + 2 positions, so that such a box is longer than columns - 3.
            rows = height if columns <= 3 or math.isinf(area) else math.ceil(area / (columns - 3)) + 2
            most = max(most, min(rows, height) * columns)
    return most


def _windows(boxes, shapes, strides, size, samples, aligned):
    """Finds the positions in the windows of boxes.

    Returns:
        Their row numbers in the positions of all levels and images, int32 `(N, R, P)`, and their weights along rows and
        along columns of bins, float32 `(N, R, P, size)`.
    """
    levels = level_of(boxes, len(shapes))
    boxes = boxes / ops.take(np.array(strides, "float32"), levels)[..., None]
    heights, widths = (ops.take(np.ascontiguousarray(side), levels) for side in shapes.T)
    first_row, rows = _extent(boxes[..., 1], boxes[..., 3], heights, aligned)
    first_column, columns = _extent(boxes[..., 0], boxes[..., 2], widths, aligned)
    position = ops.arange(window_positions(shapes, strides), dtype="int32")
    row = position // columns[..., None]
    column = position - row * columns[..., None]
    is_inside = row < rows[..., None]
    # Positions after the last one of a window repeat it, without weight.
    row = first_row[..., None] + ops.minimum(row, rows[..., None] - 1)
    column = first_column[..., None] + column
    of_level = np.cumsum([0, *np.prod(shapes, axis=1)], dtype="int32")
    of_image = ops.arange(ops.shape(boxes)[0], dtype="int32")[:, None] * of_level[-1]
    first = of_image + ops.take(of_level[:-1], levels)
    weights = (
        _weights(boxes[..., axis], boxes[..., axis + 2], at, sides, most, size, samples, aligned)
        for axis, at, sides, most in ((1, row, heights, shapes[:, 0]), (0, column, widths, shapes[:, 1]))
    )
    row_weights, column_weights = weights
    row_weights = ops.where(is_inside[..., None], row_weights, 0.0)
    return first[..., None] + row * widths[..., None] + column, row_weights, column_weights


def _extent(start, end, sides, aligned):
    """Returns the first position that a box needs along one side of the feature map, and how many, int32 `(N, R)`."""
    start, end = (edge - 0.5 * aligned for edge in (start, end))
    end = end if aligned else ops.maximum(end, start + 1)
    last = ops.cast(sides, "float32") - 1
    first = ops.cast(ops.floor(ops.clip(start, 0.0, last)), "int32")
    return first, ops.cast(ops.ceil(ops.clip(end, 0.0, last)), "int32") - first + 1


def _weights(start, end, at, sides, most, size, samples, aligned):
    """Returns the weights `(N, R, P, size)` of the positions `(N, R, P)` along one side in each bin."""
    most = int(max(most))
    weights = axis_weights(start, end, sides[..., None, None], size, 1, samples, aligned, positions=most)
    weights = ops.reshape(ops.transpose(weights, (0, 1, 3, 2)), (-1, size))
    boxes = ops.reshape(ops.arange(ops.shape(start)[0] * start.shape[1], dtype="int32"), (-1, start.shape[1], 1))
    return ops.take(weights, boxes * most + at, axis=0)
