"""Pictures as a classifier takes them, and the names of its classes."""

import numpy as np

from keras_cnv2.images.classes import imagenet_classes
from keras_cnv2.images.pictures import load_image
from keras_cnv2.models.classifier import PUBLISHED_CLASSES

# The size of the published models, for models that nobody gave one.
IMAGE_SIZE = 224

# What red, green and blue have of a grey level (ITU-R 601).
LUMA = (0.299, 0.587, 0.114)


def class_names(model):
    """The names of a classifier's classes."""
    if model.class_names is not None:
        return model.class_names
    if model.classes == PUBLISHED_CLASSES:
        return imagenet_classes()
    return tuple(f"class {index}" for index in range(model.classes))


def load_image_for(model, path, size=None, resize=None):
    """`load_image` with the size, the resizing and the channels of a model, where none are given."""
    image = load_image(path, size or model.image_size or IMAGE_SIZE, resize or model.resize)
    return image if model.input_shape[-1] == 3 else image @ np.float32(LUMA)[:, None]
