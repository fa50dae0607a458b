"""Proposals: the boxes in which the second stage looks for objects."""

from keras import ops

from keras_cnv2.detection.boxes import clip, from_deltas
from keras_cnv2.detection.nms import is_kept, rows_of


def propose(objectness, deltas, anchors, height, width, variant, training=False):
    """Selects the anchors with the highest scores, moves them by their deltas and removes those that overlap.

    Args:
        objectness: List of float32 logits `(N, A)`, one tensor for each level of the pyramid.
        deltas: List of float32 tensors `(N, A, 4)`.
        anchors: List of float32 arrays `(A, 4)`.
        height, width: Ints, the size of the images in pixels.
        variant: `Variant`.
        training: Bool, whether to keep as many as in training.

    Returns:
        Boxes `(N, P, 4)`, the ones with the highest scores first, and a bool tensor `(N, P)`: false for padding.

    Source: Faster R-CNN (arXiv 1506.01497), section 3.1; Feature Pyramid Networks (arXiv 1612.03144), section 4.1.
    """
    most, number = (
        (variant.training_candidates, variant.training_proposals)
        if training
        else (variant.candidates, variant.proposals)
    )
    levels = [
        _of_level(*level, height, width, variant, min(most, level[2].shape[0]))
        for level in zip(objectness, deltas, anchors)
    ]
    boxes, scores = (ops.concatenate(parts, axis=1) for parts in zip(*levels))
    scores, best = ops.top_k(scores, min(number, scores.shape[1]))
    is_proposal = scores >= 0
    return ops.where(is_proposal[..., None], rows_of(boxes, best), 0.0), is_proposal


def _of_level(objectness, deltas, anchors, height, width, variant, number):
    """Returns the candidates of one level, boxes `(N, K, 4)` and scores `(N, K)`, -1 for those that are removed."""
    logits, best = ops.top_k(objectness, number)
    chosen = ops.take(ops.convert_to_tensor(anchors), best, axis=0)
    boxes = from_deltas(chosen, rows_of(deltas, best), (1.0, 1.0, 1.0, 1.0), variant.largest_shrinking)
    boxes = clip(boxes, height, width)
    sides = boxes[..., 2:] - boxes[..., :2]
    is_box = ops.all((sides > 0) & (sides >= variant.smallest_proposal), axis=-1)
    return boxes, ops.where(is_kept(boxes, is_box, variant.proposal_iou), ops.sigmoid(logits), -1.0)
