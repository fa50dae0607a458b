"""What the configuration files of other libraries say about a model, read from the model once."""

from typing import NamedTuple

import keras

from keras_cnv2.checkpoints.metadata import own_statistics
from keras_cnv2.images.classes import numbered
from keras_cnv2.images.normalization import channel_statistics
from keras_cnv2.images.pictures import crop_fraction
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.heads import KINDS
from keras_cnv2.models.pictures import class_names, framing_of, pictures_of


class Facts(NamedTuple):
    """What a configuration says about a classifier or backbone.

    Args:
        model: A `ConvNeXtV2` or `ConvNeXtV2Backbone`.
        sides: Height and width in pixels to which image files are resized.
        resize: "crop", "squash", or the fraction of the shorter side that a crop keeps.
        mean, std: Tuples of floats per channel, in units of 0..1.
        class_names: Tuple of strings; `None` if the model has no classes or they have no names.
    """

    model: keras.Model
    sides: tuple[int, int]
    resize: str | float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None

    @property
    def channels(self):
        return self.model.input_shape[-1]

    @property
    def crop(self):
        """The fraction of the shorter side that a centre crop keeps, or `None` for "squash"."""
        return crop_fraction(self.resize)

    @property
    def has_head(self):
        return getattr(self.model, "include_top", False)

    @property
    def activation(self):
        """The name of a classifier's activation: "softmax", "sigmoid" or "linear"."""
        return activation_name(self.model)


def facts_of(model, image_size=None, resize=None, names=None):
    """Returns the `Facts` of a model; the other arguments take precedence over the model's own values.

    Args:
        model: A `ConvNeXtV2` or `ConvNeXtV2Backbone`.
        image_size: Optional int, the side of the images in pixels.
        resize: Optional "crop", "squash" or fraction.
        names: Optional sequence of class names.
    """
    size = image_size or framing_of(model).size
    sides, resize = pictures_of(model, tuple(side or size for side in model.input_shape[1:3]), resize)
    mean, std = channel_statistics(model.input_shape[-1], *own_statistics(model))
    return Facts(model, sides, resize or "squash", mean, std, _names(model, names))


def _names(model, names):
    if not getattr(model, "include_top", False):
        return None
    found = class_names(model, names)
    return None if found == numbered(len(found)) else found


def check_describable(model, layout):
    """Raises a `ValueError` unless the configuration of another library can describe a model.

    Args:
        model: The model.
        layout: "transformers" or "timm", for the message.
    """
    if not isinstance(model, (ConvNeXtV2, ConvNeXtV2Backbone)):
        raise ValueError(
            f"The layout {layout!r} is for a ConvNeXtV2 or a ConvNeXtV2Backbone; layout='keras' holds any model on an "
            f"encoder of this package. Received: model={model!r}"
        )
    if getattr(model, "include_top", False) and activation_name(model) not in KINDS:
        raise ValueError(
            f"{layout} has no place for a classifier's activation: it must be softmax, sigmoid or None (logits). "
            f"Received: classifier_activation={model.classifier_activation!r}"
        )


def activation_name(model):
    """The name of a classifier's activation: "softmax", "sigmoid", "linear" or that of another function."""
    return getattr(keras.activations.get(model.classifier_activation), "__name__", None)
