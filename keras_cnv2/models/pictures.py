"""Turns image files into the images that a model takes, and finds the names of its classes."""

from typing import NamedTuple

import numpy as np
from keras.ops import convert_to_numpy

from keras_cnv2.images.classes import imagenet_classes, numbered
from keras_cnv2.images.pictures import READING, default_resize, load_image
from keras_cnv2.models.classifier import PUBLISHED_CLASSES, ConvNeXtV2
from keras_cnv2.models.heads import as_taken, classes_of

# Default for models without an image size: that of the published models.
IMAGE_SIZE = 224

# Weights of red, green and blue in a grey level (ITU-R 601).
LUMA = (0.299, 0.587, 0.114)

# Numbers of channels of models that take grey or RGB images.
PICTURE_CHANNELS = (1, 3)


class Framing(NamedTuple):
    """How image files become square images.

    Args:
        size: Int, the side of the images in pixels.
        resize: "crop" or "squash".
    """

    size: int
    resize: str


def framing_of(model, size=None, resize=None):
    """Returns how image files become images for a model: the same for evaluation, prediction and exports.

    The arguments `size` and `resize` take precedence over the model's own values. The model's `resize` is only used
    with the model's image size; for another size, the default for that size is used, see `default_resize`.

    Args:
        model: A model. Its attributes `image_size` and `resize`, or its fixed square input shape, give its own values.
        size: Optional int, the side in pixels.
        resize: Optional "crop" or "squash".

    Returns:
        A `Framing`. The size is 224 pixels if neither the argument nor the model gives one.
    """
    own = image_size_of(model)
    size = size or own or IMAGE_SIZE
    if resize is None and own in (None, size):
        resize = getattr(model, "resize", None)
    return Framing(size, resize or default_resize(size))


def pictures_of(model, sides, resize=None):
    """Returns the size to which image files are resized, and how.

    Args:
        model: A model.
        sides: Height and width of the images that it takes, `None` where they are variable.
        resize: Optional "crop" or "squash", the user's choice.

    Returns:
        (height, width) and "crop" or "squash"; `sides` and `None` if images are not square.
    """
    if sides[0] != sides[1]:
        return sides, None
    framing = framing_of(model, sides[0], resize)
    return (framing.size, framing.size), framing.resize


def image_size_of(model):
    """The side of a model's images in pixels; `None` if the model has no image size or it is not square."""
    size = getattr(model, "image_size", None) or tuple(model.input_shape[1:3])
    if isinstance(size, (tuple, list)):  # (height, width), as in an FCMAE
        height, width = size
        return height if height == width else None
    return size


def class_names(model, names=None):
    """Returns the names of a model's classes: the given ones, or else the model's own.

    Without either, they are ImageNet's for a `ConvNeXtV2` with 1000 classes, and numbers for any other model.

    Raises:
        ValueError: If there are more or fewer names than classes.
    """
    classes = classes_of(model)
    names = names or getattr(model, "class_names", None)
    if names is not None:
        if len(names) != classes:
            raise ValueError(f"class_names must be {classes} names, one per class. Received: {len(names)} names")
        return tuple(names)
    if isinstance(model, ConvNeXtV2) and classes == PUBLISHED_CLASSES:
        return imagenet_classes()
    return numbered(classes)


def load_image_for(model, path, size=None, resize=None, reading=READING):
    """Loads an image file for a model: resized as in `framing_of`, in 0..255, grey if the model does not take RGB."""
    image = load_image(path, *framing_of(model, size, resize), *reading)
    return image if model.input_shape[-1] == 3 else image @ np.float32(LUMA)[:, None]


def to_input(model, images):
    """Returns images in 0..255 as the model takes them: unchanged, or normalised. Only grey and RGB are normalised."""
    taken = as_taken(model, images) if images.shape[-1] in PICTURE_CHANNELS else images
    return taken if taken is images else convert_to_numpy(taken)
