"""The class `MaskRCNN`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_cnv2.detection.anchors import check_sides, image_size_for
from keras_cnv2.detection.boxes import clip, from_deltas
from keras_cnv2.detection.labels import are_usable, image_weights
from keras_cnv2.detection.two_stage.anchors import STRIDES, anchors_of
from keras_cnv2.detection.two_stage.heads import BoxHead, MaskHead, ProposalHead
from keras_cnv2.detection.two_stage.proposals import propose
from keras_cnv2.detection.two_stage.pyramid import LEVELS, TwoStagePyramid
from keras_cnv2.detection.two_stage.roi_align import level_of, roi_align
from keras_cnv2.detection.two_stage.roi_windows import roi_align_in_windows
from keras_cnv2.detection.two_stage.sampled_losses import detection_losses, of_class, proposal_losses
from keras_cnv2.detection.two_stage.targets import Labels
from keras_cnv2.detection.two_stage.variant import Variant, variant_of
from keras_cnv2.distribute import replicas
from keras_cnv2.models.classifier import check_head
from keras_cnv2.models.configuration import from_nested_config, layers_config

# The numbers of bins of RoIAlign along each side, for the box head and for the mask head.
BOX_BINS, MASK_BINS = 7, 14

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

    def classified(self, levels: Sequence[Any], boxes: Any, training: bool = False) -> Any:
        """Returns the class logits `(N, R, classes + 1)` and deltas `(N, R, classes, 4)` of boxes `(N, R, 4)`."""
        return self.box_head(self.pooled(levels, boxes, BOX_BINS, training))

    def mask_logits(self, levels: Sequence[Any], boxes: Any, classes: Any, training: bool = False) -> Any:
        """Returns the logits `(N, R, 28, 28)` of boxes `(N, R, 4)` for one class each, int `(N, R)`."""
        logits = self.mask_head(self.pooled(levels, boxes, MASK_BINS, training))
        return of_class(ops.transpose(logits, (0, 1, 4, 2, 3)), classes)

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
            *proposal_losses(self.variant, y_pred, self.anchors(x.shape), labels, anchor_draws, weights),
            *detection_losses(self, y_pred, labels, box_draws, anchor_draws, weights),
        ]
        # A label that is not a class would count as background or as another class, and an image with a box of NaN
        # would have no loss. A compiled step cannot raise an error, so the loss becomes NaN.
        parts[2] = ops.where(ops.all(are_usable(y, self.classes)), parts[2], float("nan"))
        # Each replica has only its share of the sums over all, and metrics are means over replicas.
        _, count = replicas.replica()
        for tracker, part in zip(self.trackers, parts):
            tracker.update_state(part * count)
        return sum([*parts, *map(ops.sum, self.losses)])

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return self.get_metrics_result()

    def dense(self, first: Mapping[str, Any], shape: Sequence[int | None]) -> dict[str, Any]:
        """Decodes the boxes and the probabilities of every proposal, see `keras_cnv2.detection.Detector.dense`."""
        boxes = first["boxes"]
        logits, deltas = self.classified(first["levels"], boxes)
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
        logits = self.mask_logits(first["levels"], boxes, ops.maximum(classes, 0))
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


def _check_backbone(backbone):
    levels = getattr(backbone, "pyramid_outputs", {})
    if not {*LEVELS} <= {*levels}:
        raise ValueError(
            "Mask R-CNN needs a backbone with the levels P2 to P5, like ConvNeXtV2Backbone with stem_stride=4. "
            f"Received: backbone with {[*levels] or 'no pyramid_outputs'}"
        )
    if getattr(backbone, "output_stride", None):
        raise ValueError(
            "Mask R-CNN needs levels with strides of their own: give a backbone without output_stride. "
            f"Received: output_stride={backbone.output_stride}"
        )
    if keras.backend.backend() == "torch":
        raise ValueError("Mask R-CNN needs the TensorFlow or JAX backend of Keras. Received: backend='torch'")
    check_sides(backbone.input_shape)
