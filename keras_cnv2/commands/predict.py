"""Pictures to names of classes and probabilities."""

import glob
import os
from pathlib import Path

import numpy as np

from keras_cnv2.images.classes import decode_predictions
from keras_cnv2.images.pictures import SUFFIXES
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.pictures import class_names, load_image_for

BATCH = 16


def find_pictures(arguments):
    """Yields the paths of pictures.

    Args:
        arguments: Paths of files, of folders, which are searched with all that is in them, and glob patterns.
    """
    for argument in arguments:
        matches = [] if os.path.lexists(argument) else sorted(glob.glob(argument, recursive=True))
        for path in matches or [argument]:
            if os.path.isdir(path):
                files = (file for file in Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
                yield from sorted(file for file in files if file.is_file())
            else:
                yield path


def pictures_at(arguments):
    """The paths that `find_pictures` finds, as a list.

    Raises:
        FileNotFoundError: If none of them is there.
    """
    paths = [*find_pictures(arguments)]
    if not any(map(os.path.exists, paths)):
        raise FileNotFoundError(f"No pictures there. Received: {' '.join(map(str, arguments))}")
    return paths


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
    check_classifier(model)
    paths = list(paths)
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        images = [_try_to_load(path, model) for path in batch]
        readable = [image for image in images if not isinstance(image, Exception)]
        probabilities = model.predict_on_batch(np.stack(readable)) if readable else []
        named = iter(decode_predictions(probabilities, top, class_names(model)) if readable else [])
        for path, image in zip(batch, images):
            yield path, image if isinstance(image, Exception) else next(named)


def check_classifier(model):
    """Raises a `ValueError` if a model does not classify pictures."""
    if not isinstance(model, ConvNeXtV2) or not model.include_top:
        raise ValueError(f"These weights have no classes: they are an encoder's. Received: a {type(model).__name__}")
    if model.input_shape[-1] not in (1, 3):
        raise ValueError(
            f"Pictures have one or three channels, the model has others. Received: input_shape={model.input_shape}"
        )


def _try_to_load(path, model):
    try:
        return load_image_for(model, path)
    except (OSError, ValueError) as error:
        return error
