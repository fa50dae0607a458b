"""Pictures as a model takes them, and the names of its classes."""

from typing import NamedTuple

import numpy as np
from keras.ops import convert_to_numpy

from keras_cnv2.images.classes import imagenet_classes, numbered
from keras_cnv2.images.pictures import READING, default_resize, load_image
from keras_cnv2.models.classifier import PUBLISHED_CLASSES, ConvNeXtV2
from keras_cnv2.models.heads import as_taken, classes_of

# The size of the published models, for models that nobody gave one.
IMAGE_SIZE = 224

# What red, green and blue have of a grey level (ITU-R 601).
LUMA = (0.299, 0.587, 0.114)

# Numbers of channels that can be made of a picture's colours.
PICTURE_CHANNELS = (1, 3)


class Framing(NamedTuple):
    """How pictures become square images.

    Args:
        size: Int, the side of the images in pixels.
        resize: "crop" or "squash".
    """

    size: int
    resize: str


def framing_of(model, size=None, resize=None):
    """How a model's pictures become images, for evaluation, prediction and exports alike.

    What is given counts. A model's own way to resize belongs to its image size: for another one, pictures are resized
    in the default way for that size, see `default_resize`.

    Args:
        model: A model, whose `image_size` and `resize` may say something, or the square images that it takes.
        size: Optional int.
        resize: Optional "crop" or "squash".

    Returns:
        A `Framing`; without any size, one of 224 pixels.
    """
    own = image_size_of(model)
    size = size or own or IMAGE_SIZE
    if resize is None and own in (None, size):
        resize = getattr(model, "resize", None)
    return Framing(size, resize or default_resize(size))


def image_size_of(model):
    """The side of a model's images, if it says one and they are square; otherwise `None`."""
    size = getattr(model, "image_size", None) or tuple(model.input_shape[1:3])
    if isinstance(size, (tuple, list)):  # an FCMAE has both sides
        height, width = size
        return height if height == width else None
    return size


def class_names(model, names=None):
    """The names of a model's classes: those given, its own, or their numbers; of 1000 classes of ours, ImageNet's.

    Raises:
        ValueError: If there are more or fewer names than classes.
    """
    classes = classes_of(model)
    names = names or getattr(model, "class_names", None)
    if names is not None:
        if len(names) != classes:
            raise ValueError(f"class_names must be {classes} names, one a class. Received: {len(names)} names")
        return tuple(names)
    if isinstance(model, ConvNeXtV2) and classes == PUBLISHED_CLASSES:
        return imagenet_classes()
    return numbered(classes)


def load_image_for(model, path, size=None, resize=None, reading=READING):
    """`load_image` as a model takes pictures: framed by `framing_of`, with its channels, in 0..255."""
    image = load_image(path, *framing_of(model, size, resize), *reading)
    return image if model.input_shape[-1] == 3 else image @ np.float32(LUMA)[:, None]


def to_input(model, images):
    """Images in 0..255 as a model takes them: as they are, or normalised, if they are pictures."""
    taken = as_taken(model, images) if images.shape[-1] in PICTURE_CHANNELS else images
    return taken if taken is images else convert_to_numpy(taken)
