"""Boxes: their overlap, and the deltas that lead from anchors to them.

Boxes are "xyxy": left, top, right, bottom in pixels. All functions work on tensors with any leading axes; nothing here
is RetinaNet's own (Mask R-CNN: the same deltas lead from proposals to boxes).
"""

import math

from keras import ops

# By which deltas are divided, so that they vary about as much as scores do. KerasCV's order: y, x, height, width.
VARIANCE = (0.1, 0.1, 0.2, 0.2)

# Of what the exponent of a size may be, as in Detectron: an untrained model's would overflow.
LARGEST_GROWTH = math.log(1000 / 16)


def overlap(boxes, others):
    """Intersection over union of all pairs.

    Args:
        boxes, others: Tensors `(..., A, 4)` and `(..., B, 4)`.

    Returns:
        A tensor `(..., A, B)` in [0, 1]; 0 where neither box has an area.
    """
    left, top, right, bottom = _sides(ops.expand_dims(boxes, -2))
    others_left, others_top, others_right, others_bottom = _sides(ops.expand_dims(others, -3))
    width = ops.minimum(right, others_right) - ops.maximum(left, others_left)
    height = ops.minimum(bottom, others_bottom) - ops.maximum(top, others_top)
    shared = ops.maximum(width, 0) * ops.maximum(height, 0)
    area, others_area = (right - left) * (bottom - top), (others_right - others_left) * (others_bottom - others_top)
    return ops.divide_no_nan(shared, area + others_area - shared)


def to_deltas(anchors, boxes):
    """What a model has to predict at `anchors` for `boxes`: shifts and logarithms of growths, over the variance.

    Args:
        anchors, boxes: Tensors `(..., 4)`; anchors have an area.

    Returns:
        A tensor `(..., 4)`: y, x, height, width.

    Source: Rich feature hierarchies (arXiv 1311.2524), appendix C.
    """
    y, x, height, width = _center_and_size(anchors)
    box_y, box_x, box_height, box_width = _center_and_size(boxes)
    deltas = (
        (box_y - y) / height,
        (box_x - x) / width,
        # Of a box without an area nothing is learned: it is padding.
        ops.log(ops.maximum(box_height, 1e-6) / height),
        ops.log(ops.maximum(box_width, 1e-6) / width),
    )
    return ops.stack([delta / variance for delta, variance in zip(deltas, VARIANCE)], axis=-1)


def from_deltas(anchors, deltas):
    """The boxes that predicted deltas lead to from anchors: the inverse of `to_deltas`.

    Args:
        anchors, deltas: Tensors `(..., 4)`.

    Returns:
        A tensor `(..., 4)`. No box is more than 62.5 times as high or wide as its anchor.
    """
    y, x, height, width = _center_and_size(anchors)
    down, right, taller, wider = (delta * variance for delta, variance in zip(_sides(deltas), VARIANCE))
    y, x = y + down * height, x + right * width
    half_height = ops.exp(ops.minimum(taller, LARGEST_GROWTH)) * height / 2
    half_width = ops.exp(ops.minimum(wider, LARGEST_GROWTH)) * width / 2
    return ops.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def clip(boxes, height, width):
    """Boxes `(..., 4)` without what lies beyond an image."""
    left, top, right, bottom = _sides(boxes)
    clipped = ops.clip(left, 0, width), ops.clip(top, 0, height), ops.clip(right, 0, width), ops.clip(bottom, 0, height)
    return ops.stack(clipped, axis=-1)


def _sides(boxes):
    return tuple(boxes[..., side] for side in range(4))


def _center_and_size(boxes):
    left, top, right, bottom = _sides(boxes)
    return (top + bottom) / 2, (left + right) / 2, bottom - top, right - left
