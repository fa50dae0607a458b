"""Matching of anchors to boxes for training.

`match` takes any overlaps and thresholds, also those of Mask R-CNN; `AnchorTargets` applies it to RetinaNet.
"""

import keras
from keras import ops

from keras_cnv2.detection.anchors import all_anchors
from keras_cnv2.detection.boxes import overlap, to_deltas
from keras_cnv2.layers.built import needs_build

# Values of a match that are not the index of a box.
BACKGROUND, IGNORED = -1, -2


def match(overlaps, positive=0.5, negative=0.4, low_quality=0.0, own_best=False):
    """Matches each anchor to the box that it overlaps most, if the overlap is large enough.

    Args:
        overlaps: Float tensor `(..., A, B)` of anchors and boxes; negative in columns that are padding.
        positive: Float. An anchor with at least this overlap is matched.
        negative: Float. An anchor with less than this overlap is background. In between it is ignored.
        low_quality: Float or `None`. An anchor that has the largest overlap with some box among all anchors is matched
            if that overlap is at least this value and above 0. Otherwise, with `None`, small or elongated boxes that
            fit no anchor are never learned.
        own_best: Bool, whether such an anchor is matched to that box even if it overlaps another box more; of several
            such boxes to the last one. As in Detectron, an anchor is otherwise always matched to the box that it
            overlaps most.

    Returns:
        An int32 tensor `(..., A)`: the index of the box, `BACKGROUND` or `IGNORED`.

    Source: Faster R-CNN (arXiv 1506.01497), section 3.1.2; Focal Loss (arXiv 1708.02002), section 4, "Anchors", which
        uses that rule with other thresholds.
    """
    best = ops.max(overlaps, axis=-1)
    boxes = ops.cast(ops.argmax(overlaps, axis=-1), "int32")
    has_box = best >= positive
    if low_quality is not None:
        most = ops.max(overlaps, axis=-2, keepdims=True)
        is_best = (overlaps == most) & (most > 0) & (most >= low_quality)
        has_box = has_box | ops.any(is_best, axis=-1)
        if own_best:
            last = ops.max(ops.where(is_best, ops.arange(ops.shape(overlaps)[-1], dtype="int32"), -1), axis=-1)
            boxes = ops.where(last >= 0, last, boxes)
    return ops.where(has_box, boxes, ops.where(best < negative, BACKGROUND, IGNORED))


class AnchorTargets(keras.layers.Layer):
    """Computes the training targets of RetinaNet at each anchor. It replaces KerasCV's label encoder.

    KerasCV's label encoder adds a metric of matches to all logs. With low-quality matches it also matches padding. And
    it computes in the model's precision: in bfloat16, anchors are off by several pixels.

    Args:
        anchor_generator: `keras_cv.layers.AnchorGenerator` of boxes in "xyxy" format.
        low_quality_matches: Bool, whether boxes that fit no anchor are matched to those that overlap them most.

    Call arguments:
        images: Tensor `(N, height, width, channels)`. Only its shape is used.
        labels: {"boxes": float tensor `(N, B, 4)`, "classes": tensor `(N, B)`}. Classes below 0 are padding.

    Returns:
        Deltas, float32 `(N, A, 4)`, see `to_deltas`, and classes, int32 `(N, A)`: the class of the matched box,
        `BACKGROUND` or `IGNORED`.
    """

    def __init__(self, anchor_generator, low_quality_matches=True, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.anchor_generator = anchor_generator
        self.bounding_box_format = anchor_generator.bounding_box_format
        self.low_quality_matches = low_quality_matches
        self.built = not needs_build(self)

    def call(self, images, labels):
        anchors = all_anchors(self.anchor_generator, images.shape)

        def of_one_image(label):
            boxes, classes = label
            overlaps = ops.where(classes >= 0, overlap(anchors, boxes), -1.0)
            matches = match(overlaps, low_quality=0.0 if self.low_quality_matches else None)
            box = ops.maximum(matches, 0)
            deltas = to_deltas(anchors, ops.take(boxes, box, axis=0))
            return deltas, ops.where(matches >= 0, ops.take(classes, box, axis=0), matches)

        boxes, classes = (ops.cast(labels[name], dtype) for name, dtype in (("boxes", "float32"), ("classes", "int32")))
        # Add one padding box, so that `take` works when the batch has no boxes.
        boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)))
        classes = ops.pad(classes, ((0, 0), (0, 1)), constant_values=-1)
        # One image at a time, because the overlaps of a whole batch would take gigabytes of memory.
        return ops.map(of_one_image, (boxes, classes))
