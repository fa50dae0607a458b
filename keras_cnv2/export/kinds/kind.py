"""`Kind`, what exporters ask a kind of model, and `kind_for`, which chooses it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_cnv2.detection.detector import is_detector
from keras_cnv2.export.images import Images
from keras_cnv2.export.kinds.classifier import ExportedClassifier
from keras_cnv2.export.kinds.detector import ExportedDetector
from keras_cnv2.export.kinds.encoder import ExportedEncoder
from keras_cnv2.export.kinds.fcmae import ExportedFCMAE
from keras_cnv2.export.kinds.segmenter import ExportedSegmenter
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.heads import stem_of
from keras_cnv2.segmentation.deeplab import is_deeplab
from keras_cnv2.segmentation.upernet import UPerNet

# What some models can be exported to: the targets with their names.
SEGMENTER = {"saved_model": "SavedModels"}
DETECTOR = {"saved_model": "SavedModels", "serving": "serving folders", "onnx": "ONNX files"}


class Kind(Protocol):
    """A model of one kind, to be exported. It is made from the model and `keras_cnv2.export.options.Options`.

    Args:
        model: The model.
        labels: Its class names, or `None`.
        images: The images that the export takes.
        pictures: The size (height, width) to which image files are resized, and how: "crop", "squash" or `None`.
    """

    model: keras.Model
    labels: Sequence[str] | None
    images: Images
    pictures: tuple[tuple[int | None, int | None], str | None]

    def functions(self, names: Any) -> Mapping[str, tuple[Callable, list]]:
        """Returns the signatures of a SavedModel, {name: (function, list of `tf.TensorSpec`)}.

        Args:
            names: Lookup table from class ids to class names, or `None`.
        """

    def check(self, served: Any, images: np.ndarray) -> None:
        """Raises an `ExportError` unless the outputs of all signatures are the model's.

        Args:
            served: `keras_cnv2.export.saved_model.check.Served`, the signatures of the written SavedModel.
            images: Images to compare on, in the model's range.
        """


def kind_for(model, target="saved_model"):
    """Returns the class that exports a model: the class of a `Kind`.

    Args:
        model: The model.
        target: "saved_model", "serving", "litert" or "onnx".

    Raises:
        ValueError: If the model is not of a kind that can be exported to the target.
    """
    on_ours = isinstance(getattr(model, "backbone", None), ConvNeXtV2Backbone)
    is_segmenter = on_ours and (isinstance(model, UPerNet) or is_deeplab(model))
    if is_segmenter or is_detector(model):
        kind, targets = (ExportedSegmenter, SEGMENTER) if is_segmenter else (ExportedDetector, DETECTOR)
        if target not in targets:
            raise ValueError(
                f"{'Segmentation models' if is_segmenter else 'Detectors'} can only be exported as "
                f"{', '.join(targets.values())}. Received: model={model!r}"
            )
        return kind
    if isinstance(model, FCMAE) and target in ("saved_model", "serving"):
        return ExportedFCMAE
    stem_of(model)
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(f"Exported models have one input, images (N, H, W, channels). Received: inputs of {shapes}")
    if isinstance(model, ConvNeXtV2Backbone) or (isinstance(model, ConvNeXtV2) and not model.include_top):
        return ExportedEncoder
    return ExportedClassifier
