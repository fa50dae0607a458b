"""The class `MaskRCNN`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_cnv2.detection.anchors import check_sides, image_size_for
from keras_cnv2.detection.boxes import VARIANCE, clip, from_deltas, to_deltas
from keras_cnv2.detection.labels import image_weights
from keras_cnv2.detection.matching import BACKGROUND
from keras_cnv2.detection.two_stage import losses
from keras_cnv2.detection.two_stage.anchors import STRIDES, anchors_of
from keras_cnv2.detection.two_stage.heads import BoxHead, MaskHead, ProposalHead
from keras_cnv2.detection.two_stage.proposals import propose
from keras_cnv2.detection.two_stage.pyramid import LEVELS, TwoStagePyramid
from keras_cnv2.detection.two_stage.roi_align import level_of, roi_align
from keras_cnv2.detection.two_stage.roi_windows import roi_align_in_windows
from keras_cnv2.detection.two_stage.sampling import sample
from keras_cnv2.detection.two_stage.targets import Labels, mask_targets, matches_of, rows_of_labels
from keras_cnv2.detection.two_stage.variant import Variant, variant_of
from keras_cnv2.distribute import replicas
from keras_cnv2.models.classifier import check_head
from keras_cnv2.models.configuration import from_nested_config, layers_config

# The numbers of bins of RoIAlign along each side, for the box head and for the mask head.
BOX_BINS, MASK_BINS = 7, 14

# Deltas of the proposal network are not divided by anything.
ANCHOR_VARIANCE = (1.0, 1.0, 1.0, 1.0)

LOSSES = ("objectness_loss", "proposal_loss", "class_loss", "box_loss", "mask_loss")


@keras.saving.register_keras_serializable(package="keras_cnv2")
class MaskRCNN(keras.Model):
    """Mask R-CNN, or Faster R-CNN without the masks; see `keras_cnv2.detection.mask_rcnn` for the arguments.

    Call arguments:
        images: Tensor `(N, height, width, channels)` with static height and width, multiples of 32.
        training: Bool.

    Returns:
        The outputs of the first stage, from which the second one starts, as a dict: "levels", the feature maps P2 to
        P5; "objectness", float32 logits `(N, A)` of all anchors, and "deltas" `(N, A, 4)`, lists with a tensor for each
        level; "boxes" `(N, P, 4)` and "is_proposal" `(N, P)`, the proposals; "draws", random
        numbers for the selection of samples.
    """

    def __init__(
        self,
        backbone: keras.Model,
        classes: int,
        masks: bool = True,
        width: int = 256,
        units: int = 1024,
        convs: int = 4,
        class_names: Sequence[str] | None = None,
        image_size: int | None = None,
        variant: str | Variant | Mapping[str, Any] = "mmdetection",
        seed: int | None = None,
        name: str | None = None,
    ):
        check_head(True, classes, None, class_names)
        _check_backbone(backbone)
        policy = backbone.dtype_policy
        super().__init__(name=name, dtype=policy)
        self.variant = variant_of(variant)
        self.backbone = backbone
        self.classes = int(classes)
        self.masks = bool(masks)
        self.width, self.units, self.convs = width, units, convs
        self.class_names = None if class_names is None else tuple(class_names)
        self.image_size = image_size_for(image_size, backbone.input_shape)
        self.seed = seed
        self.random = keras.random.SeedGenerator(seed)
        self.features = keras.Model(backbone.input, {level: backbone.pyramid_outputs[level] for level in LEVELS})
        self.pyramid = TwoStagePyramid(width, dtype=policy, name="pyramid")
        self.proposal_head = ProposalHead(width, dtype=policy, name="proposal_head")
        self.box_head = BoxHead(classes, units, dtype=policy, name="box_head")
        self.mask_head = MaskHead(classes, width, convs, dtype=policy, name="mask_head") if masks else None
        self.trackers = [keras.metrics.Mean(name=name) for name in LOSSES[: 5 if masks else 4]]
        self._build()

    def _build(self):
        levels = {level: self.backbone.pyramid_outputs[level].shape for level in LEVELS}
        self.pyramid.build(levels)
        self.proposal_head.build((None, None, None, self.width))
        self.box_head.build((None, None, BOX_BINS, BOX_BINS, self.width))
        if self.masks:
            self.mask_head.build((None, None, MASK_BINS, MASK_BINS, self.width))
        self.built = True

    def call(self, images: Any, training: bool | None = False) -> dict[str, Any]:
        check_sides(images.shape, are_known=True)
        first = self.first_stage(self.features(images, training=training), images.shape, training)
        # Losses of an evaluation are of the same samples each time.
        seeds = (self.random, self.random) if training else (0, 1)
        numbers = sum(map(len, self.anchors(images.shape))), first["boxes"].shape[1]
        draws = [replicas.uniform((ops.shape(images)[0], number), seed) for number, seed in zip(numbers, seeds)]
        return {**first, "draws": draws}

    def first_stage(
        self, features: Mapping[str, Any], shape: Sequence[int | None], training: bool | None = False
    ) -> dict[str, Any]:
        """Computes the outputs of the model, without "draws", from the features of the backbone.

        Args:
            features: {"P2", "P3", "P4", "P5": float tensors}, what `self.features` returns.
            shape: Shape of the images, `(N, height, width, channels)`.
            training: Bool.
        """
        levels = self.pyramid(features)
        objectness, deltas = map(list, zip(*(self.proposal_head(level) for level in levels)))
        boxes, is_proposal = self.proposals(objectness, deltas, shape, training)
        first = {"levels": levels[:4], "objectness": objectness, "deltas": deltas}
        return {**first, "boxes": boxes, "is_proposal": is_proposal}

    def proposals(
        self,
        objectness: Sequence[Any],
        deltas: Sequence[Any],
        shape: Sequence[int | None],
        training: bool | None = False,
    ) -> tuple[Any, Any]:
        """Returns the proposals `(N, P, 4)` and which of them are not padding, see `propose`; without gradients."""
        objectness, deltas = ([*map(ops.stop_gradient, levels)] for levels in (objectness, deltas))
        boxes, is_proposal = propose(
            objectness, deltas, self.anchors(shape), *shape[1:3], self.variant, training=bool(training)
        )
        return ops.stop_gradient(boxes), is_proposal

    def anchors(self, shape: Sequence[int | None]) -> list[Any]:
        """Returns the anchors of each level for images of shape `(N, height, width, channels)`."""
        return anchors_of(*shape[1:3], self.variant.anchor_scale, self.variant.rounded_anchors)

    def pooled(self, levels: Sequence[Any], boxes: Any, bins: int, training: bool = False) -> Any:
        """Returns the features `(N, R, bins, bins, width)` of boxes `(N, R, 4)`."""
        arguments = STRIDES[:4], bins, self.variant.samples, self.variant.aligned
        if training:
            return roi_align(levels, boxes, level_of(boxes), *arguments)
        return roi_align_in_windows(levels, boxes, *arguments)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        labels = Labels.of(y, x.shape, self.masks)
        weights = image_weights(sample_weight)
        anchor_draws, box_draws = y_pred["draws"]
        parts = [
            *self._first_losses(y_pred, self.anchors(x.shape), labels, anchor_draws, weights),
            *self._second_losses(y_pred, labels, box_draws, anchor_draws, weights),
        ]
        # Each replica has only its share of the sums over all, and metrics are means over replicas.
        _, count = replicas.replica()
        for tracker, part in zip(self.trackers, parts):
            tracker.update_state(part * count)
        return sum([*parts, *map(ops.sum, self.losses)])

    def _first_losses(self, first, anchors, labels, draws, weights):
        """Returns the losses of the proposal network: objectness and deltas."""
        variant = self.variant
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
        of_class = losses.binary_cross_entropy(ops.take_along_axis(logits, chosen, axis=1), is_matched)
        of_box = losses.delta_loss(deltas, ops.where(is_matched[..., None] > 0, targets, deltas), variant.beta)
        return ops.sum(of_class * weights) / count, ops.sum(of_box * is_matched * weights) / count

    def _second_losses(self, first, labels, draws, other_draws, weights):
        """Returns the losses of the second stage: classes, deltas and masks."""
        variant = self.variant
        # The boxes themselves are proposals. They take random numbers of anchors, which are independent of those here.
        is_object = labels.classes >= 0
        boxes = ops.concatenate([labels.boxes, first["boxes"]], axis=1)
        is_proposal = ops.concatenate([is_object, first["is_proposal"]], axis=1)
        draws = ops.concatenate([other_draws[:, : ops.shape(labels.classes)[1]], draws], axis=1)
        matches = matches_of(
            boxes, is_proposal, labels, 0.5, 0.5, low_quality=variant.proposal_low_quality, own_best=variant.own_best
        )
        is_background = (matches == BACKGROUND) & is_proposal
        number = variant.box_samples
        if boxes.shape[1] is None:  # the number of objects is not static
            number = min(number, first["boxes"].shape[1])
        chosen, is_chosen = sample(matches >= 0, is_background, draws, number, number // 4)
        weights = ops.cast(is_chosen, "float32") * weights
        count = _count(weights)
        boxes, matches = (
            ops.take_along_axis(boxes, chosen[..., None], axis=1),
            ops.where(is_chosen, ops.take_along_axis(matches, chosen, axis=1), BACKGROUND),
        )
        logits, deltas = self.box_head(self.pooled(first["levels"], boxes, BOX_BINS, training=True))
        own_boxes, classes = rows_of_labels(labels, matches)
        is_matched = matches >= 0
        targets = ops.where(is_matched, classes, self.classes)
        # A label that is not a class would count as background, or as another class. A compiled step cannot raise an
        # error, so the loss of such an image becomes NaN.
        is_known = ops.all(labels.classes < self.classes, axis=-1, keepdims=True)
        of_class = ops.where(is_known, losses.cross_entropy(logits, targets), float("nan"))
        of_box = self._box_loss(deltas, boxes, own_boxes, classes, is_matched)
        parts = [ops.sum(of_class * weights) / count, ops.sum(of_box * weights) / count]
        if self.masks:
            most = max(number // 4, 1)
            parts.append(
                self._mask_loss(
                    first["levels"], labels, boxes[:, :most], matches[:, :most], classes[:, :most], weights[:, :most]
                )
            )
        return parts

    def _box_loss(self, deltas, boxes, own_boxes, classes, is_matched):
        deltas = _of_class(deltas, classes)
        targets = to_deltas(ops.where(is_matched[..., None], boxes, _UNIT), own_boxes, VARIANCE)
        of_box = losses.delta_loss(deltas, ops.where(is_matched[..., None], targets, deltas), self.variant.beta)
        return ops.where(is_matched, of_box, 0.0)

    def _mask_loss(self, levels, labels, boxes, matches, classes, weights):
        logits = self.mask_head(self.pooled(levels, boxes, MASK_BINS, training=True))
        logits = _of_class(ops.transpose(logits, (0, 1, 4, 2, 3)), classes)
        targets = mask_targets(labels.masks, ops.maximum(matches, 0), boxes, 2 * MASK_BINS, self.variant)
        loss = ops.mean(losses.binary_cross_entropy(logits, targets), axis=(-2, -1))
        weights = ops.where(matches >= 0, weights, 0.0)
        return ops.sum(loss * weights) / _count(weights)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return self.get_metrics_result()

    def dense(self, first: Mapping[str, Any], shape: Sequence[int | None]) -> dict[str, Any]:
        """Decodes the boxes and the probabilities of every proposal, see `keras_cnv2.detection.Detector.dense`."""
        boxes = first["boxes"]
        logits, deltas = self.box_head(self.pooled(first["levels"], boxes, BOX_BINS))
        scores = ops.softmax(ops.cast(logits, "float32"), axis=-1)[..., :-1]
        moved = from_deltas(
            boxes[:, :, None], ops.cast(deltas, "float32"), largest_shrinking=self.variant.largest_shrinking
        )
        moved = clip(moved, *shape[1:3])
        is_box = ops.all(moved[..., 2:] - moved[..., :2] >= self.variant.smallest_box, axis=-1)
        return {"boxes": moved, "scores": ops.where(is_box & first["is_proposal"][..., None], scores, 0.0)}

    def parts(self, shape: Sequence[int | None]) -> list[int]:
        """Returns the number of proposals: candidates are the best of all of them."""
        return [min(self.variant.proposals, sum(map(len, self.anchors(shape))))]

    def masks_in(self, first: Mapping[str, Any], boxes: Any, classes: Any) -> Any:
        """Returns the masks of detections.

        Args:
            first: The outputs of the model.
            boxes: Float32 tensor `(N, M, 4)`.
            classes: Int tensor `(N, M)`; below 0 for padding.

        Returns:
            Probabilities, float32 `(N, M, 28, 28)`.
        """
        logits = self.mask_head(self.pooled(first["levels"], boxes, MASK_BINS))
        logits = _of_class(ops.transpose(logits, (0, 1, 4, 2, 3)), ops.maximum(classes, 0))
        return ops.sigmoid(ops.cast(logits, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "classes": self.classes,
            "masks": self.masks,
            "width": self.width,
            "units": self.units,
            "convs": self.convs,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "variant": dataclasses.asdict(self.variant),
            "seed": self.seed,
            "name": self.name,
            **layers_config(self),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return from_nested_config(cls, config, ("backbone",), custom_objects)


# A box of one pixel, in place of those without a match: their deltas are not used, but must be finite.
_UNIT = np.array([0, 0, 1, 1], "float32")


def _count(weights):
    """Returns the sum of weights on all replicas, at least 1."""
    return ops.maximum(replicas.all_sum(ops.sum(weights)), 1.0)


def _of_class(values, classes):
    """Takes the values of one class `(N, R, ...)` from those of all classes `(N, R, K, ...)`."""
    classes = ops.clip(classes, 0, values.shape[2] - 1)  # labels that are no class make the loss NaN elsewhere
    chosen = ops.reshape(classes, (-1, *classes.shape[1:], *(1,) * (len(values.shape) - 2)))
    return ops.take_along_axis(values, chosen, axis=2)[:, :, 0]


def _check_backbone(backbone):
    levels = getattr(backbone, "pyramid_outputs", {})
    if not {*LEVELS} <= {*levels}:
        raise ValueError(
            "Mask R-CNN needs a backbone with the levels P2 to P5, like ConvNeXtV2Backbone with stem_stride=4. "
            f"Received: backbone with {[*levels] or 'no pyramid_outputs'}"
        )
    if keras.backend.backend() == "torch":
        raise ValueError("Mask R-CNN needs the TensorFlow or JAX backend of Keras. Received: backend='torch'")
    check_sides(backbone.input_shape)
