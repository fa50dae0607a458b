"""The five losses of Mask R-CNN: means over the anchors and proposals that are sampled from a batch."""

import numpy as np
from keras import ops

from keras_cnv2.detection.boxes import VARIANCE, to_deltas
from keras_cnv2.detection.matching import BACKGROUND
from keras_cnv2.detection.two_stage import losses
from keras_cnv2.detection.two_stage.sampling import sample
from keras_cnv2.detection.two_stage.targets import mask_targets, matches_of, rows_of_labels
from keras_cnv2.distribute import replicas

# Deltas of the proposal network are not divided by anything.
ANCHOR_VARIANCE = (1.0, 1.0, 1.0, 1.0)

# A box of one pixel, in place of those without a match: their deltas are not used, but must be finite.
_UNIT = np.array([0, 0, 1, 1], "float32")


def proposal_losses(variant, first, anchors, labels, draws, weights):
    """Computes the losses of the proposal network.

    Args:
        variant: `Variant`.
        first: The outputs of the model, see `MaskRCNN`.
        anchors: List of arrays `(A, 4)`, one for each level.
        labels: `Labels`.
        draws: Float tensor in [0, 1), a random number `(N, A)` for each anchor.
        weights: Float tensor `(N, 1)`, the weights of the images.

    Returns:
        Two scalars: the loss of the objectness, and that of the deltas.
    """
    anchors = ops.concatenate(anchors, axis=0)
    matches = matches_of(
        anchors, None, labels, 0.7, 0.3, low_quality=variant.anchor_low_quality, own_best=variant.own_best
    )
    number = variant.anchor_samples
    chosen, is_chosen = sample(matches >= 0, matches == BACKGROUND, draws, number, number // 2)
    weights = ops.cast(is_chosen, "float32") * weights
    count = _count(weights)
    logits, deltas = (ops.concatenate(first[name], axis=1) for name in ("objectness", "deltas"))
    matches = ops.take_along_axis(matches, chosen, axis=1)
    is_matched = ops.cast(matches >= 0, "float32")
    boxes, _ = rows_of_labels(labels, matches)
    targets = to_deltas(ops.take(anchors, chosen, axis=0), boxes, ANCHOR_VARIANCE)
    deltas = ops.take_along_axis(deltas, chosen[..., None], axis=1)
    of_object = losses.binary_cross_entropy(ops.take_along_axis(logits, chosen, axis=1), is_matched)
    of_box = losses.delta_loss(deltas, ops.where(is_matched[..., None] > 0, targets, deltas), variant.beta)
    return ops.sum(of_object * weights) / count, ops.sum(of_box * is_matched * weights) / count


def detection_losses(model, first, labels, draws, other_draws, weights):
    """Computes the losses of the second stage.

    Args:
        model: `MaskRCNN`.
        first, labels, weights: As in `proposal_losses`.
        draws: Float tensor `(N, P)` in [0, 1), a random number for each proposal.
        other_draws: The same for each of at least as many anchors as there are objects.

    Returns:
        Two scalars, the losses of classes and deltas, and a third one, that of masks, if the model has them.
    """
    variant = model.variant
    boxes, matches, is_chosen = _sampled(variant, first, labels, draws, other_draws)
    weights = ops.cast(is_chosen, "float32") * weights
    count = _count(weights)
    logits, deltas = model.classified(first["levels"], boxes, training=True)
    own_boxes, classes = rows_of_labels(labels, matches)
    is_matched = matches >= 0
    targets = ops.where(is_matched, classes, model.classes)
    of_classes = losses.cross_entropy(logits, targets)
    of_boxes = _box_loss(of_class(deltas, classes), boxes, own_boxes, is_matched, variant.beta)
    parts = [ops.sum(of_classes * weights) / count, ops.sum(of_boxes * weights) / count]
    if model.masks:
        most = variant.box_samples // 4  # the matched ones are first
        columns = (column[:, :most] for column in (boxes, matches, classes, weights))
        parts.append(_mask_loss(model, first["levels"], labels, *columns))
    return parts


def _sampled(variant, first, labels, draws, other_draws):
    """Selects proposals: boxes `(N, S, 4)`, the objects that they match `(N, S)`, and which of them are no padding."""
    # The boxes themselves are proposals. They take random numbers of anchors, which are independent of those here.
    is_object = labels.classes >= 0
    boxes = ops.concatenate([labels.boxes, first["boxes"]], axis=1)
    is_proposal = ops.concatenate([is_object, first["is_proposal"]], axis=1)
    draws = ops.concatenate([other_draws[:, : ops.shape(labels.classes)[1]], draws], axis=1)
    matches = matches_of(
        boxes, is_proposal, labels, 0.5, 0.5, low_quality=variant.proposal_low_quality, own_best=variant.own_best
    )
    number = variant.box_samples
    if boxes.shape[1] is None:  # the number of objects is not static
        number = min(number, first["boxes"].shape[1])
    is_background = (matches == BACKGROUND) & is_proposal
    chosen, is_chosen = sample(matches >= 0, is_background, draws, number, number // 4)
    boxes = ops.take_along_axis(boxes, chosen[..., None], axis=1)
    return boxes, ops.where(is_chosen, ops.take_along_axis(matches, chosen, axis=1), BACKGROUND), is_chosen


def _box_loss(deltas, boxes, own_boxes, is_matched, beta):
    targets = to_deltas(ops.where(is_matched[..., None], boxes, _UNIT), own_boxes, VARIANCE)
    of_box = losses.delta_loss(deltas, ops.where(is_matched[..., None], targets, deltas), beta)
    return ops.where(is_matched, of_box, 0.0)


def _mask_loss(model, levels, labels, boxes, matches, classes, weights):
    logits = model.mask_logits(levels, boxes, classes, training=True)
    targets = mask_targets(labels.masks, ops.maximum(matches, 0), boxes, logits.shape[-1], model.variant)
    loss = ops.mean(losses.binary_cross_entropy(logits, targets), axis=(-2, -1))
    weights = ops.where(matches >= 0, weights, 0.0)
    return ops.sum(loss * weights) / _count(weights)


def _count(weights):
    """Returns the sum of weights on all replicas, at least 1."""
    return ops.maximum(replicas.all_sum(ops.sum(weights)), 1.0)


def of_class(values, classes):
    """Takes the values of one class `(N, R, ...)` from those of all classes `(N, R, K, ...)`."""
    classes = ops.clip(classes, 0, values.shape[2] - 1)  # labels that are no class make the loss NaN elsewhere
    chosen = ops.reshape(classes, (-1, *classes.shape[1:], *(1,) * (len(values.shape) - 2)))
    return ops.take_along_axis(values, chosen, axis=2)[:, :, 0]
