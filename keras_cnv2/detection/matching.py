"""Which anchor is trained on which box.

`match` takes any overlaps and thresholds (Mask R-CNN: 0.7 and 0.3 for the proposals' anchors, 0.5 and 0.5 for the
proposals themselves); `AnchorTargets` is RetinaNet's use of it.
"""

import keras
from keras import ops

from keras_cnv2.detection.anchors import all_anchors
from keras_cnv2.detection.boxes import overlap, to_deltas
from keras_cnv2.layers.built import needs_build

# In the place of the number of a box.
BACKGROUND, IGNORED = -1, -2


def match(overlaps, positive=0.5, negative=0.4, low_quality=True):
    """Gives each anchor the box that it overlaps most, if it does so enough.

    Args:
        overlaps: Float tensor `(..., A, B)` of anchors and boxes; below 0 in the columns that are no boxes.
        positive: Float: from this overlap on, an anchor has its box.
        negative: Float: below this overlap, an anchor is background. In between it is ignored.
        low_quality: Bool, whether the anchors that overlap a box most of all anchors have their box however little they
            overlap it. Otherwise small or long boxes that no anchor fits are not learned at all.

    Returns:
        An int32 tensor `(..., A)`: the number of the box, `BACKGROUND` or `IGNORED`.

    Source: Faster R-CNN (arXiv 1506.01497), section 3.1.2; Focal Loss (arXiv 1708.02002), section 4, "Anchors", which
        takes that rule with other thresholds. As in Detectron, the box is always the one the anchor overlaps most.
    """
    best = ops.max(overlaps, axis=-1)
    boxes = ops.cast(ops.argmax(overlaps, axis=-1), "int32")
    has_box = best >= positive
    if low_quality:
        most = ops.max(overlaps, axis=-2, keepdims=True)
        has_box = has_box | ops.any((overlaps == most) & (most > 0), axis=-1)
    return ops.where(has_box, boxes, ops.where(best < negative, BACKGROUND, IGNORED))


class AnchorTargets(keras.layers.Layer):
    """What RetinaNet has to predict at each anchor: the place of KerasCV's label encoder.

    KerasCV's own counts the matches in a metric, which then is in all logs, and, asked to give every box an anchor,
    gives padding one, too. It computes in the model's precision: in bfloat16 anchors are off by pixels.

    Args:
        anchor_generator: `keras_cv.layers.AnchorGenerator` for boxes "xyxy".
        low_quality_matches: Bool, see `match`.

    Call arguments:
        images: Tensor `(N, height, width, channels)`, of which only the shape is read.
        labels: {"boxes": float tensor `(N, B, 4)`, "classes": tensor `(N, B)`, below 0 where there is no box}.

    Returns:
        Deltas, float32 `(N, A, 4)`, see `to_deltas`, and classes, int32 `(N, A)`: those of the boxes, `BACKGROUND` or
        `IGNORED`.
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
            matches = match(overlaps, low_quality=self.low_quality_matches)
            box = ops.maximum(matches, 0)
            deltas = to_deltas(anchors, ops.take(boxes, box, axis=0))
            return deltas, ops.where(matches >= 0, ops.take(classes, box, axis=0), matches)

        boxes, classes = (ops.cast(labels[name], dtype) for name, dtype in (("boxes", "float32"), ("classes", "int32")))
        # A row of padding: there is a box to take, though a batch has none.
        boxes = ops.pad(boxes, ((0, 0), (0, 1), (0, 0)))
        classes = ops.pad(classes, ((0, 0), (0, 1)), constant_values=-1)
        # One image after the other: the overlaps of a batch would take gigabytes.
        return ops.map(of_one_image, (boxes, classes))
