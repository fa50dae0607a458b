"""A classifier as transformers.js, optimum and other readers of ONNX from the hub take it: pixel_values to logits."""

import keras
import numpy as np

from keras_cnv2.checkpoints.load import load_checkpoint
from keras_cnv2.checkpoints.named_arrays import state_dict
from keras_cnv2.export.check import compare
from keras_cnv2.export.metadata import exported_metadata
from keras_cnv2.folding.fold import fold
from keras_cnv2.images.normalization import preprocess_input
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.pictures import to_input
from keras_cnv2.pretrained.facts import check_describable

INPUT, OUTPUT = "pixel_values", "logits"

# The names of the dimensions of the input; that of the images also names the first one of the output.
AXES = ("batch_size", "num_channels", "height", "width")


class PixelValues:
    """A classifier that takes normalised images `(N, channels, H, W)` and returns logits.

    Args:
        kind: `keras_cnv2.export.kinds.kind.Kind` of a `ConvNeXtV2` with its top.
        facts: `keras_cnv2.pretrained.facts.Facts`.
    """

    def __init__(self, kind, facts):
        model, sides = kind.model, kind.images.shape[1:3]
        self.kind, self.facts = kind, facts
        self.bare = ConvNeXtV2(
            model.depths,
            model.dims,
            classes=model.classes,
            classifier_activation=None,
            include_preprocessing=False,
            input_shape=(*sides, facts.channels),
            stem_stride=model.stem_stride,
            norm_epsilon=model.norm_epsilon,
            dtype="float32",
        )
        load_checkpoint(self.bare, state_dict(model))
        pixels = keras.Input((facts.channels, *sides), name=INPUT)
        inner = fold(self.bare) if kind.options.fold else self.bare
        self.graph = keras.Model(pixels, {OUTPUT: inner(keras.ops.transpose(pixels, (0, 2, 3, 1)))}, name=model.name)

    @property
    def metadata(self):
        """`exported_metadata` of what this takes and returns, rather than the model."""
        statistics = {"mean": self.facts.mean, "std": self.facts.std}
        scaled = {name: [255 * value for value in values] for name, values in statistics.items()}
        return {**exported_metadata(self.kind), **scaled, "classifier_activation": "linear"}

    def pixels(self, images):
        """Returns images in 0..255, `(N, H, W, channels)`, as this takes them."""
        return np.moveaxis(np.asarray(self._normalised(images)), -1, 1)

    def check(self, outputs, images):
        """Raises an `ExportError` unless the outputs of the file are those of the model for images in 0..255."""
        model, logits = self.kind.model, outputs[OUTPUT]
        compare(OUTPUT, logits, self.bare(self._normalised(images), training=False))
        activation = keras.activations.get(model.classifier_activation)
        answers = activation(keras.ops.convert_to_tensor(logits))
        compare("the model's outputs", answers, model(to_input(model, images), training=False))

    def _normalised(self, images):
        return preprocess_input(images, self.facts.mean, self.facts.std)


def check_classifier(model):
    """Raises a `ValueError` unless a model is a classifier that this layout can hold."""
    check_describable(model, "transformers")
    if not getattr(model, "include_top", False):
        raise ValueError(
            "The layout 'transformers' of ONNX files is for classifiers, a ConvNeXtV2 with include_top=True. "
            f"Received: model={model!r}"
        )
