"""RoIAlign: features of a fixed size from any part of a feature map.

Bilinear samples on a grid are averaged. Weights along rows and along columns are independent of each other, so a bin is
the product of two matrices with the feature map. This is faster than to gather samples, above all the gradient, which
would be scattered to single positions.
"""

import math

from keras import ops

# The largest number of samples along a side of a bin, if that number depends on the size of the box.
MOST_SAMPLES = 8


def roi_align(features, boxes, levels, strides, size, samples=0, aligned=True):
    """Samples the features of boxes from the levels of a pyramid.

    Args:
        features: List of float tensors `(N, H, W, C)`, one for each level.
        boxes: Float32 tensor `(N, R, 4)` in "xyxy" format, in pixels of the image.
        levels: Int tensor `(N, R)`, the index of the level of each box.
        strides: List of numbers, the strides of the levels.
        size: Int S, the number of bins along each side.
        samples: Int, the number of samples along each side of a bin; 0: the size of the bin in the feature map, rounded
            up, at most `MOST_SAMPLES`.
        aligned: Bool, whether a position of the feature map stands for the centre of its part of the image. If not, it
            stands for the upper left corner, and boxes are at least one position wide and high.

    Returns:
        A tensor `(N, R, S, S, C)` of the features' dtype.

    Source: Mask R-CNN (arXiv 1703.06870), section 3, "RoIAlign".
    """
    sampled = 0
    for level, (feature_map, stride) in enumerate(zip(features, strides)):
        is_here = ops.cast(levels == level, "float32")[..., None, None]
        rows, columns = (
            axis_weights(boxes[..., axis], boxes[..., axis + 2], side, size, stride, samples, aligned)
            for axis, side in ((1, feature_map.shape[1]), (0, feature_map.shape[2]))
        )
        rows, columns = (ops.cast(weights, feature_map.dtype) for weights in (rows * is_here, columns))
        sampled = sampled + ops.einsum("nrjw,nriwc->nrijc", columns, ops.einsum("nrih,nhwc->nriwc", rows, feature_map))
    return sampled


def axis_weights(start, end, side, size, stride=1, samples=0, aligned=True, most_samples=MOST_SAMPLES, positions=None):
    """Returns the weights of all positions along one side of a feature map in each bin.

    Args:
        start, end: Float32 tensors `(...)`, the edges of boxes in pixels of the image.
        side: The number of positions along this side of the feature map, an int or an int tensor `(..., 1, 1)`.
        size, stride, samples, aligned: As in `roi_align`.
        most_samples: Int, the largest number of samples if `samples` is 0.
        positions: Int, the largest `side` if that is a tensor.

    Returns:
        A float32 tensor `(..., size, positions)`. The weights of a bin inside the feature map add up to 1.
    """
    positions, side = positions or side, ops.cast(side, "float32")
    start, end = (edge[..., None, None] / stride - 0.5 * aligned for edge in (start, end))
    length = end - start if aligned else ops.maximum(end - start, 1.0)
    step = length / size
    number = ops.arange(samples or most_samples, dtype="float32")
    # The size of a bin rounded up. Compilers multiply by 1 / size, after which a whole number may be rounded up, too.
    more = ops.cast(length > size * number[1:], "float32")
    count = float(samples) if samples else 1 + ops.sum(more, axis=-1, keepdims=True)
    bins = ops.arange(size, dtype="float32")[:, None]
    at = start + bins * step + (number + 0.5) * step / count  # (..., size, samples)
    # Beyond its border, the feature map has the values of the border for one position, and then zeros.
    is_used = (number < count) & (at >= -1) & (at <= side)
    weights = tents(ops.clip(at, 0.0, side - 1.0), positions)  # (..., size, samples, positions)
    return ops.sum(ops.where(is_used[..., None], weights, 0.0), axis=-2) / count


def tents(at, side):
    """Returns the weights `(..., side)` of linear interpolation at positions `(...)` between whole ones from 0 on."""
    return ops.relu(1 - ops.abs(at[..., None] - ops.arange(side, dtype="float32")))


def level_of(boxes, levels=4):
    """Returns the level of the pyramid, from 0 (P2), from which the features of a box are taken.

    ```
    floor(4 + log2(sqrt(width * height) / 224)) - 2, at least 0 and below `levels`
    ```

    Args:
        boxes: Float32 tensor `(..., 4)` in "xyxy" format.
        levels: Int, the number of levels.

    Returns:
        An int32 tensor `(...)`.

    Source: Feature Pyramid Networks (arXiv 1612.03144), equation 1.
    """
    area = ops.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 1e-12)
    # The small number keeps a box of exactly 112, 224, ... pixels at the level that starts there, in spite of rounding.
    level = ops.floor(4 + ops.log2(ops.sqrt(area) / 224) + 1e-6) - 2
    return ops.cast(ops.clip(level, 0, levels - 1), "int32")


def largest_side(level, levels=4):
    """Returns the side in pixels that no square box of a level has, see `level_of`; infinite for the last level."""
    return 112.0 * 2**level if level < levels - 1 else math.inf
