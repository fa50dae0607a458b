"""`Detector`: a model from images to detections."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_cnv2.arguments import fraction, number, positive_int
from keras_cnv2.detection import nms as suppression
from keras_cnv2.models.configuration import from_nested_config

NMS = ("soft", "hard", "linear")


def is_detector(model):
    """Whether it is a `Detector`, a Mask R-CNN, or a RetinaNet, whose class cannot be imported without KerasCV."""
    return isinstance(model, Detector) or hasattr(model, "box_head")


@keras.saving.register_keras_serializable(package="keras_cnv2")
class Detector(keras.Model):
    """A RetinaNet or Mask R-CNN with decoding and non-maximum suppression: a model for inference.

    From each level, the `candidates` pairs of an anchor and a class with the highest scores are decoded to boxes and
    clipped to the image. Boxes that overlap a box of the same class with a higher score are suppressed.

    ```python
    detector = keras_cnv2.detection.Detector(model)
    found = detector.predict(images)
    for box, number, score in zip(found["boxes"][0], found["classes"][0], found["scores"][0]):
        ...  # until the number is -1
    ```

    Args:
        model: A model made by `keras_cnv2.detection.retinanet` or `keras_cnv2.detection.mask_rcnn`.
        nms: "soft" lowers the scores of overlapping boxes, as in the paper's tests; "hard" removes
            these boxes; "linear" lowers the scores of boxes that overlap by more than `iou_threshold`.
        score_threshold: Float in [0, 1). Only detections with scores above it are returned. To compute average
            precision with soft NMS, which keeps low scores, use 0.001.
        iou_threshold: Float in [0, 1], the overlap above which "hard" removes a box, and "linear" multiplies its
            score by 1 - overlap.
        sigma: Positive float. "soft" multiplies scores by `exp(-overlap ** 2 / sigma)`.
        max_detections: Int M, the maximum number of detections per image.
        candidates: Int, the maximum number of candidates per level of RetinaNet, and of all of Mask R-CNN.
        name: Name of the model.

    Call arguments:
        images: Tensor `(N, height, width, channels)`. Height and width must be static and multiples of 32.

    Returns:
        {"boxes": float32 `(N, M, 4)`, left, top, right, bottom in pixels, "classes": int32 `(N, M)`, "scores": float32
        `(N, M)`, "count": int32 `(N,)`}, sorted by score, the highest first. From `count` on, all values are -1.
        With masks also {"masks": float32 `(N, M, 28, 28)`, the probability that a pixel of the box is part of the
        object, 0 from `count` on}, see `keras_cnv2.detection.paste_masks`.

    Raises:
        ValueError: If an argument is out of range, or the images have an unsuitable size.

    Source: Focal Loss (arXiv 1708.02002), section 4.1, "Inference"; Soft-NMS (arXiv 1704.04503); ConvNeXt V2 (arXiv
        2301.00808), appendix, for the use of soft NMS.
    """

    def __init__(
        self,
        model: keras.Model,
        nms: str = "soft",
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        sigma: float = 0.5,
        max_detections: int = 100,
        candidates: int = 1000,
        name: str | None = None,
    ):
        if not hasattr(model, "dense") or not hasattr(model, "parts"):
            raise ValueError(
                "model must be made by keras_cnv2.detection.retinanet or keras_cnv2.detection.mask_rcnn. "
                f"Received: model={model!r}"
            )
        super().__init__(name=name, dtype="float32")
        if nms not in NMS:
            raise ValueError(f"nms must be one of {NMS}. Received: nms={nms!r}")
        self.model = model
        self.nms = nms
        self.score_threshold = fraction("score_threshold", score_threshold)
        self.iou_threshold = number("iou_threshold", iou_threshold, "a number in [0, 1]", lambda x: 0 <= x <= 1)
        self.sigma = number("sigma", sigma, "a positive number", lambda x: 0 < x < float("inf"))
        self.max_detections = positive_int("max_detections", max_detections)
        self.candidates = positive_int("candidates", candidates)
        self.traced_shape = None
        self.built = True

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.model.class_names

    def call(self, images: Any) -> dict[str, Any]:
        predictions = self.model(images, training=False)
        found = self.detections(self.dense(predictions, images.shape), images.shape)
        return self.with_masks(predictions, found)

    @property
    def has_masks(self) -> bool:
        return getattr(self.model, "masks", False)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self._forget_other_shapes(x)
        return super().predict(x, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> dict[str, Any]:
        self._forget_other_shapes(x)
        return super().predict_on_batch(x)

    def _forget_other_shapes(self, images):
        """Has Keras trace another image size anew. It would trace it with variable sides, which have no anchors."""
        shape = getattr(getattr(images, "element_spec", images), "shape", None)
        shape = None if shape is None else tuple(shape)[1:]
        if shape is None or shape != self.traced_shape:
            self.traced_shape, self.predict_function = shape, None

    def dense(self, predictions: Mapping[str, Any], shape: Sequence[int | None]) -> dict[str, Any]:
        """Decodes the box and the probabilities of every anchor or proposal, before any suppression.

        Args:
            predictions: Dict of tensors that the model returned.
            shape: Shape of the images, `(N, height, width, channels)`.

        Returns:
            {"boxes": float32 `(N, A, 4)`, "scores": float32 `(N, A, classes)`}. Of Mask R-CNN each class has boxes of
            its own, `(N, A, classes, 4)`.
        """
        return self.model.dense(predictions, shape)

    def detections(self, dense: Mapping[str, Any], shape: Sequence[int | None]) -> dict[str, Any]:
        """Selects candidates and applies non-maximum suppression.

        Args:
            dense: Dict of tensors that `dense` returned.
            shape: Shape of the images, `(N, height, width, channels)`.

        Returns:
            A dict of detections, as when the model is called, without masks.
        """
        ends = [*itertools.accumulate(self.model.parts(shape))]
        parts = [
            suppression.best_of(dense["boxes"][:, start:end], dense["scores"][:, start:end], self.candidates)
            for start, end in zip([0, *ends], ends)
        ]
        boxes, scores, classes = (ops.concatenate(columns, axis=1) for columns in zip(*parts))
        width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
        scores = ops.where((width > 0) & (height > 0), scores, 0.0)  # boxes that lie outside the image
        factor = self._factor()
        return suppression.suppress(boxes, scores, classes, factor, self.max_detections, self.score_threshold)

    def with_masks(self, predictions: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the masks of detections, if the model predicts masks.

        Args:
            predictions: Dict of tensors that the model returned.
            found: Dict of tensors that `detections` returned.

        Returns:
            A dict of detections, as when the model is called.
        """
        if not self.has_masks:
            return dict(found)
        masks = self.model.masks_in(predictions, found["boxes"], found["classes"])
        return {**found, "masks": ops.where(found["classes"][..., None, None] >= 0, masks, 0.0)}

    def _factor(self):
        """Returns the function from overlaps with a better box to factors of scores."""
        if self.nms == "soft":
            return suppression.soft(self.sigma)
        return (suppression.hard if self.nms == "hard" else suppression.linear)(self.iou_threshold)

    def get_config(self) -> dict[str, Any]:
        return {
            # How the model was compiled does not matter here, and names classes that may not be imported.
            "model": {**keras.saving.serialize_keras_object(self.model), "compile_config": None},
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
        config = dict(config)
        if "retinanet" in config:  # the name in older files
            config["model"] = config.pop("retinanet")
        return from_nested_config(cls, config, ("model",), custom_objects)
