"""Loads a SavedModel and compares its outputs with those of its model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from keras_cnv2.export.check import TOLERANCE, compare, full_precision, sample_images
from keras_cnv2.models.heads import compute_dtypes
from keras_cnv2.models.pictures import to_input

# Largest allowed difference in half precision, relative to the largest value. It is larger than in float32, because a
# folded model rounds at other places.
HALF_TOLERANCE = 5e-2


class Served(NamedTuple):
    """The signatures of a loaded SavedModel.

    Args:
        signatures: {name: function}.
        tolerance: Float, the largest allowed relative difference from the values of the model.
    """

    signatures: Mapping[str, Any]
    tolerance: float

    def outputs(self, name, expected, **inputs):
        """Returns the outputs of a signature for inputs of any dtype.

        Raises an `ExportError` if outputs differ from those `expected`, a dict.
        """
        function = self.signatures[name]
        specs = function.structured_input_signature[1]
        outputs = function(**{key: tf.cast(value, specs[key].dtype) for key, value in inputs.items()})
        self.compare(name, outputs, expected)
        return outputs

    def compare(self, name, outputs, expected):
        """Raises an `ExportError` if outputs of a signature differ from those `expected`, a dict."""
        for output, values in expected.items():
            compare(f"{name}, {output}", outputs[output], values, self.tolerance)


class ServedFile(Served):
    """The outputs of a file that has no signatures, for some images: `signatures` is {name: dict of tensors}."""

    def outputs(self, name, expected, **inputs):
        self.compare(name, self.signatures[name], expected)
        return self.signatures[name]


def check_saved_model(folder, kind):
    """Raises an `ExportError` unless the outputs of every signature are the model's.

    Args:
        folder: Path of the SavedModel.
        kind: `keras_cnv2.export.kinds.kind.Kind`, what was exported.
    """
    tolerance = TOLERANCE if compute_dtypes(kind.model) == {"float32"} else HALF_TOLERANCE
    served = Served(tf.saved_model.load(str(folder)).signatures, tolerance)
    with full_precision():
        kind.check(served, to_input(kind.model, sample_images(kind.images.shape, kind.images.smallest)))
