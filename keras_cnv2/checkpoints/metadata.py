"""Metadata stored with weights: class names, image size and other facts that the weights themselves do not show.

The metadata are a dict with any of these keys:

    "class_names"            one string per class
    "image_size"             int, pixels
    "resize"                 "crop", "squash", or the fraction that the crop keeps, see `keras_cnv2.load_image`
    "classifier_activation"  name of a Keras activation, if it is not the default one; "linear" for logits
    "include_preprocessing"  false if the model takes normalised images
    "norm_epsilon"           of the classifier's final norm, if it is not 1e-6
    "pooling"                of features without a head, if it is not "avg"
    "mean", "std"            with which images are normalised, one float per channel in units of 0..1, if they are not
                             the default ones
    "output_stride", "out_levels"  of a backbone, see `keras_cnv2.ConvNeXtV2Backbone`
    "pretrained"             the published file that the weights are or were trained from: dict of "repository", "file",
                             "commit" and "sha256"
"""

import logging
import re
from numbers import Real

import keras

from keras_cnv2.arguments import is_positive_int
from keras_cnv2.errors import CheckpointError
from keras_cnv2.images.normalization import Preprocessing, channel_statistics, check_statistics
from keras_cnv2.images.pictures import is_resize
from keras_cnv2.keras_internals import all_layers

logger = logging.getLogger(__name__)

# The key of these metadata, written as JSON, in the metadata of a safetensors file.
KEY = "keras_cnv2"

LEVEL = re.compile("P[0-5]")

# The default epsilon of a classifier's final norm.
EPSILON = 1e-6

# In pixels: more than any model of this kind can use, but images of this size still fit into memory.
MAX_IMAGE_SIZE = 4096


def _is_activation(name):
    try:
        return isinstance(name, str) and callable(keras.activations.get(name))
    except ValueError:
        return False


def _is_origin(origin):
    return isinstance(origin, dict) and all(isinstance(text, str) for item in origin.items() for text in item)


def is_epsilon(value):
    """Whether `value` can be the epsilon of a norm."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < value < 1


def _are_statistics(name):
    def check(values):
        try:
            return check_statistics(None, **{"mean": None, "std": None, name: values}) is not None
        except ValueError:
            return False

    return check


CHECKS = {
    "class_names": lambda names: isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names),
    "image_size": lambda size: is_positive_int(size) and size <= MAX_IMAGE_SIZE,
    "resize": is_resize,
    "classifier_activation": _is_activation,
    "include_preprocessing": lambda value: isinstance(value, bool),
    "norm_epsilon": is_epsilon,
    "pooling": lambda pooling: isinstance(pooling, str) and pooling in ("avg", "max"),
    "mean": _are_statistics("mean"),
    "std": _are_statistics("std"),
    "output_stride": lambda stride: is_positive_int(stride),
    "out_levels": lambda levels: (
        isinstance(levels, (list, tuple)) and all(isinstance(level, str) and LEVEL.fullmatch(level) for level in levels)
    ),
    "pretrained": _is_origin,
}


def default_activation(classes):
    """The default activation: softmax, or sigmoid for one class (the softmax of one logit is always 1)."""
    return "sigmoid" if classes == 1 else "softmax"


def check_metadata(metadata):
    """Returns the entries with the keys above; raises a `CheckpointError` for an invalid value."""
    if not isinstance(metadata, dict):
        raise CheckpointError(f"the metadata of the weights make no sense. Received: {str(metadata)[:200]}")
    known = {name: metadata[name] for name in CHECKS if name in metadata}
    for name, value in known.items():
        if not CHECKS[name](value):
            raise CheckpointError(f"the metadata of the weights make no sense. Received: {name}={str(value)[:200]}")
    return known


def adopt_metadata(model, metadata):
    """Sets the attributes of a model from the metadata of its weights.

    `pretrained` is set on any model. `class_names`, `image_size` and `resize` are set on a classifier that has none:
    the image size only if the model takes images of any size, and `resize` only if the model then has the image size of
    the metadata. Activation and preprocessing are not changed, since they are part of the built model: if it normalises
    images in another way, or has another epsilon, than the metadata say, a warning says so.
    """
    model.pretrained = metadata.get("pretrained")
    _compare_statistics(model, metadata)
    _compare_epsilon(model, metadata)
    if not hasattr(model, "class_names"):
        return
    if model.class_names is None and "class_names" in metadata:
        model.class_names = tuple(metadata["class_names"])
    image_size = metadata.get("image_size")
    if model.image_size is None and model.input_shape[1:3] == (None, None):
        model.image_size = image_size
    if model.resize is None and model.image_size == image_size:
        model.resize = metadata.get("resize")


def _compare_statistics(model, metadata):
    """Logs a warning if a model normalises images in another way than the metadata of its weights say."""
    if not {"mean", "std"} & metadata.keys() or not hasattr(model, "mean"):
        return
    channels = model.input_shape[-1]
    theirs = channel_statistics(channels, metadata.get("mean"), metadata.get("std"))
    ours = channel_statistics(channels, model.mean, model.std)
    if theirs != ours:
        logger.warning(
            "%s: its weights were trained on images with mean %s and std %s, but it normalises them with mean %s and "
            "std %s: give it mean=..., std=... when it is built",
            *(model.name, *theirs, *ours),
        )


def _compare_epsilon(model, metadata):
    ours, theirs = getattr(model, "norm_epsilon", None), metadata.get("norm_epsilon")
    if None not in (ours, theirs) and ours != theirs:
        logger.warning(
            "%s: its weights were trained with norm_epsilon=%g, but it has %g: give it this when it is built",
            *(model.name, theirs, ours),
        )


def metadata_of(model):
    """Returns the metadata of a model."""
    found = {name: getattr(model, name, None) for name in CHECKS} | {"classifier_activation": _activation_of(model)}
    found |= dict(zip(("mean", "std"), own_statistics(model)))
    if found["norm_epsilon"] == EPSILON:
        found["norm_epsilon"] = None
    if found["pooling"] != "max" or getattr(model, "include_top", False):
        found["pooling"] = None
    found["include_preprocessing"] = None if _preprocesses(model) else False
    return {name: value for name, value in found.items() if value is not None and CHECKS[name](value)}


def own_statistics(model):
    """Returns the mean and the standard deviation with which a model normalises images, per channel in units of 0..1.

    They are `None` for the default ones, see `keras_cnv2.images.normalization.channel_statistics`. They are the
    attributes `mean` and `std` of a classifier, a backbone, or the backbone in an FCMAE, a segmenter or a detector; in
    a model of the user they are those of its `Preprocessing` layer, or of the encoder that it holds.
    """
    parts = (getattr(model, "backbone", model), model, *all_layers(model))
    return next(((part.mean, part.std) for part in parts if _has_statistics(part)), (None, None))


def _has_statistics(part):
    is_ours = isinstance(part, Preprocessing) or hasattr(part, "include_preprocessing")
    return is_ours and hasattr(part, "mean") and hasattr(part, "std")


def _preprocesses(model):
    """Whether a model takes images in 0..255. A model of the user does if it holds a `Preprocessing` layer."""
    found = any(isinstance(layer, Preprocessing) for layer in all_layers(model))
    return getattr(model, "include_preprocessing", found)


def _activation_of(model):
    """The name of a classifier's activation; `None` for the default one, and for functions that Keras does not have."""
    if not getattr(model, "include_top", False):
        return None
    activation = keras.activations.get(model.classifier_activation)
    name = getattr(activation, "__name__", None)
    is_known = _is_activation(name) and keras.activations.get(name) is activation
    return name if is_known and name != default_activation(model.classes) else None
