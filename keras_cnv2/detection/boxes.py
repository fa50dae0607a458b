"""Operations on boxes: overlap, deltas between anchors and boxes, clipping.

Boxes are in "xyxy" format: left, top, right, bottom in pixels. All functions accept tensors with any leading axes.
Nothing here is specific to RetinaNet (Mask R-CNN uses the same deltas between proposals and boxes).
"""

import math

from keras import ops

# Deltas are divided by these values, so that their variance is comparable to that of scores. The order is KerasCV's:
# y, x, height, width.
VARIANCE = (0.1, 0.1, 0.2, 0.2)

# Upper bound of the logarithm of a relative size, as in Detectron. The exponential of an untrained model's prediction
# could overflow.
LARGEST_GROWTH = math.log(1000 / 16)


def overlap(boxes, others):
    """Computes the intersection over union of all pairs of boxes.

    Args:
        boxes, others: Tensors `(..., A, 4)` and `(..., B, 4)`.

    Returns:
        A tensor `(..., A, B)` in [0, 1]; 0 if the area of both boxes is zero.
    """
    left, top, right, bottom = _sides(ops.expand_dims(boxes, -2))
    others_left, others_top, others_right, others_bottom = _sides(ops.expand_dims(others, -3))
    width = ops.minimum(right, others_right) - ops.maximum(left, others_left)
    height = ops.minimum(bottom, others_bottom) - ops.maximum(top, others_top)
    shared = ops.maximum(width, 0) * ops.maximum(height, 0)
    area, others_area = (right - left) * (bottom - top), (others_right - others_left) * (others_bottom - others_top)
    return ops.divide_no_nan(shared, area + others_area - shared)


def to_deltas(anchors, boxes, variance=VARIANCE):
    """Encodes boxes as deltas from anchors: shifts and logarithms of relative sizes, divided by `variance`.

    Args:
        anchors, boxes: Tensors `(..., 4)`. The area of anchors must be positive.
        variance: Four floats.

    Returns:
        A tensor `(..., 4)` in the order y, x, height, width.

    Source: Rich feature hierarchies (arXiv 1311.2524), appendix C.
    """
    y, x, height, width = _center_and_size(anchors)
    box_y, box_x, box_height, box_width = _center_and_size(boxes)
    deltas = (
        (box_y - y) / height,
        (box_x - x) / width,
        # Boxes without an area are padding, and are not used in training.
        ops.log(ops.maximum(box_height, 1e-6) / height),
        ops.log(ops.maximum(box_width, 1e-6) / width),
    )
    return ops.stack([delta / deviation for delta, deviation in zip(deltas, variance)], axis=-1)


def from_deltas(anchors, deltas, variance=VARIANCE, largest_shrinking=False):
    """Decodes predicted deltas from anchors to boxes; the inverse of `to_deltas`.

    Args:
        anchors, deltas: Tensors `(..., 4)`.
        variance: Four floats.
        largest_shrinking: Bool, whether a box is also at least a 62.5th as high and wide as its anchor.

    Returns:
        A tensor of boxes `(..., 4)`. A box is at most 62.5 times as high or wide as its anchor.
    """
    y, x, height, width = _center_and_size(anchors)
    down, right, taller, wider = (delta * deviation for delta, deviation in zip(_sides(deltas), variance))
    if largest_shrinking:
        taller, wider = ops.maximum(taller, -LARGEST_GROWTH), ops.maximum(wider, -LARGEST_GROWTH)
    y, x = y + down * height, x + right * width
    half_height = ops.exp(ops.minimum(taller, LARGEST_GROWTH)) * height / 2
    half_width = ops.exp(ops.minimum(wider, LARGEST_GROWTH)) * width / 2
    return ops.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def clip(boxes, height, width):
    """Clips boxes `(..., 4)` to an image of the given height and width in pixels."""
    left, top, right, bottom = _sides(boxes)
    clipped = ops.clip(left, 0, width), ops.clip(top, 0, height), ops.clip(right, 0, width), ops.clip(bottom, 0, height)
    return ops.stack(clipped, axis=-1)


def _sides(boxes):
    return tuple(boxes[..., side] for side in range(4))


def _center_and_size(boxes):
    left, top, right, bottom = _sides(boxes)
    return (top + bottom) / 2, (left + right) / 2, bottom - top, right - left
