"""`Detector`: a model from images to detections."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_cnv2.arguments import fraction, number, positive_int
from keras_cnv2.detection import nms as suppression
from keras_cnv2.detection.anchors import all_anchors, level_sizes
from keras_cnv2.detection.boxes import clip, from_deltas
from keras_cnv2.detection.matching import AnchorTargets
from keras_cnv2.models.configuration import from_nested_config

NMS = ("soft", "hard")


def is_detector(model):
    """Whether the model is a `Detector` or a RetinaNet, whose class cannot be imported without KerasCV."""
    return isinstance(model, Detector) or hasattr(model, "box_head")


@keras.saving.register_keras_serializable(package="keras_cnv2")
class Detector(keras.Model):
    """A RetinaNet with decoding and non-maximum suppression: a model for inference.

    From each level, the `candidates` pairs of an anchor and a class with the highest scores are decoded to boxes and
    clipped to the image. Boxes that overlap a box of the same class with a higher score are suppressed.

    ```python
    detector = keras_cnv2.detection.Detector(model)
    found = detector.predict(images)
    for box, number, score in zip(found["boxes"][0], found["classes"][0], found["scores"][0]):
        ...  # until the number is -1
    ```

    Args:
        retinanet: A model made by `keras_cnv2.detection.retinanet`.
        nms: "soft" lowers the scores of overlapping boxes, as in the paper's tests; "hard" removes these boxes.
        score_threshold: Float in [0, 1). Only detections with scores above it are returned. To compute average
            precision with soft NMS, which keeps low scores, use 0.001.
        iou_threshold: Float in [0, 1], the overlap above which "hard" removes a box.
        sigma: Positive float. "soft" multiplies scores by `exp(-overlap ** 2 / sigma)`.
        max_detections: Int M, the maximum number of detections per image.
        candidates: Int, the maximum number of candidates per level.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`. Height and width must be static and multiples of 32.

    Returns:
        {"boxes": float32 `(N, M, 4)`, left, top, right, bottom in pixels, "classes": int32 `(N, M)`, "scores": float32
        `(N, M)`, "count": int32 `(N,)`}, sorted by score, the highest first. From `count` on, all values are -1.

    Raises:
        ValueError: If an argument is out of range, or the images have an unsuitable size.

    Source: Focal Loss (arXiv 1708.02002), section 4.1, "Inference"; Soft-NMS (arXiv 1704.04503); ConvNeXt V2 (arXiv
        2301.00808), appendix, for the use of soft NMS.
    """

    def __init__(
        self,
        retinanet: keras.Model,
        nms: str = "soft",
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        sigma: float = 0.5,
        max_detections: int = 100,
        candidates: int = 1000,
        name: str | None = None,
    ):
        # Only this package's RetinaNet has `AnchorTargets`. KerasCV's may use another box format and lacks attributes
        # that are read below.
        if not isinstance(getattr(retinanet, "label_encoder", None), AnchorTargets):
            raise ValueError(
                f"retinanet must be a model made by keras_cnv2.detection.retinanet. Received: retinanet={retinanet!r}"
            )
        super().__init__(name=name, dtype="float32")
        if nms not in NMS:
            raise ValueError(f"nms must be one of {NMS}. Received: nms={nms!r}")
        self.retinanet = retinanet
        self.nms = nms
        self.score_threshold = fraction("score_threshold", score_threshold)
        self.iou_threshold = number("iou_threshold", iou_threshold, "a number in [0, 1]", lambda x: 0 <= x <= 1)
        self.sigma = number("sigma", sigma, "a positive number", lambda x: 0 < x < float("inf"))
        self.max_detections = positive_int("max_detections", max_detections)
        self.candidates = positive_int("candidates", candidates)
        self.built = True

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.retinanet.class_names

    def call(self, images: Any) -> dict[str, Any]:
        return self.detections(self.dense(self.retinanet(images, training=False), images.shape), images.shape)

    def dense(self, predictions: Mapping[str, Any], shape: Sequence[int | None]) -> dict[str, Any]:
        """Decodes the box and the probabilities of every anchor, before any suppression.

        Args:
            predictions: Dict of tensors that the RetinaNet returned.
            shape: Shape of the images, `(N, height, width, channels)`.

        Returns:
            {"boxes": float32 `(N, A, 4)`, "scores": float32 `(N, A, classes)`}.
        """
        anchors = all_anchors(self.retinanet.anchor_generator, shape)
        # Restores the static number of anchors, which Keras 3.10 loses in graphs.
        deltas, logits = (
            ops.reshape(predictions[name], (-1, anchors.shape[0], predictions[name].shape[-1]))
            for name in ("box", "classification")
        )
        return {"boxes": clip(from_deltas(anchors, deltas), *shape[1:3]), "scores": ops.sigmoid(logits)}

    def detections(self, dense: Mapping[str, Any], shape: Sequence[int | None]) -> dict[str, Any]:
        """Selects candidates and applies non-maximum suppression.

        Args:
            dense: Dict of tensors that `dense` returned.
            shape: Shape of the images, `(N, height, width, channels)`.

        Returns:
            A dict of detections, as when the model is called.
        """
        ends = [*itertools.accumulate(level_sizes(shape))]
        levels = [
            suppression.best_of(dense["boxes"][:, start:end], dense["scores"][:, start:end], self.candidates)
            for start, end in zip([0, *ends], ends)
        ]
        boxes, scores, classes = (ops.concatenate(parts, axis=1) for parts in zip(*levels))
        width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
        scores = ops.where((width > 0) & (height > 0), scores, 0.0)  # boxes that lie outside the image
        factor = suppression.soft(self.sigma) if self.nms == "soft" else suppression.hard(self.iou_threshold)
        return suppression.suppress(boxes, scores, classes, factor, self.max_detections, self.score_threshold)

    def get_config(self) -> dict[str, Any]:
        return {
            "retinanet": keras.saving.serialize_keras_object(self.retinanet),
            "nms": self.nms,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "sigma": self.sigma,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        return from_nested_config(cls, config, ("retinanet",), custom_objects)
