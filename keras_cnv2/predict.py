"""Pictures to names of classes and probabilities."""

import glob
from pathlib import Path

import numpy as np

from keras_cnv2.classes import decode_predictions, imagenet_classes
from keras_cnv2.models import PUBLISHED_CLASSES
from keras_cnv2.preprocessing import SUFFIXES, load_image

BATCH = 16

# The size of the published models, for models that nobody gave one.
IMAGE_SIZE = 224

# What red, green and blue have of a grey level (ITU-R 601).
LUMA = (0.299, 0.587, 0.114)


def find_pictures(arguments):
    """Yields the paths of pictures.

    Args:
        arguments: Paths of files, of folders, which are searched with all that is in them, and glob patterns.
    """
    for argument in arguments:
        matches = sorted(glob.glob(argument, recursive=True)) if not Path(argument).exists() else []
        for path in map(Path, matches or [argument]):
            if path.is_dir():
                yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            else:
                yield path


def predict(model, paths, top=5):
    """Classifies pictures, a batch at a time.

    Args:
        model: A `keras_cnv2.ConvNeXtV2` with classes, for images in 0..255. Its `class_names`, `image_size` and
            `resize` are used; without names, 1000 classes are ImageNet's and others are numbered.
        paths: Paths of pictures.
        top: Int, how many classes to name.

    Yields:
        Pairs of a path and, the most probable first, its list of (name, probability); or of a path and the error, if
        it is no picture that can be read.

    Raises:
        ValueError: If the model is no classifier of RGB or grey pictures.
    """
    if not getattr(model, "include_top", False) or model.input_shape[-1] not in (1, 3):
        raise ValueError(
            "Predictions need a classifier of RGB or grey pictures; these weights are an encoder's, or of other "
            f"channels. Received: model={model.name!r}, input_shape={model.input_shape}"
        )
    paths = list(paths)
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        images = [_try_to_load(path, model) for path in batch]
        readable = [image for image in images if not isinstance(image, Exception)]
        probabilities = model.predict_on_batch(np.stack(readable)) if readable else []
        named = iter(decode_predictions(probabilities, top, class_names(model)) if readable else [])
        for path, image in zip(batch, images):
            yield path, image if isinstance(image, Exception) else next(named)


def class_names(model):
    """The names of a classifier's classes."""
    if model.class_names is not None:
        return model.class_names
    if model.classes == PUBLISHED_CLASSES:
        return imagenet_classes()
    return tuple(f"class {index}" for index in range(model.classes))


def _try_to_load(path, model):
    try:
        image = load_image(path, model.image_size or IMAGE_SIZE, model.resize)
        return image if model.input_shape[-1] == 3 else image @ np.float32(LUMA)[:, None]
    except (OSError, ValueError) as error:
        return error
