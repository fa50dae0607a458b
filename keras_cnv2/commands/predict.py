"""Classifies image files: names of classes with probabilities, or with other output values of a model."""

import argparse
import logging
import os
from pathlib import Path

import keras
import numpy as np

from keras_cnv2.images.classes import decode_predictions, rank
from keras_cnv2.images.folders import LeftOut, pictures_below
from keras_cnv2.images.header import MAX_PIXELS
from keras_cnv2.images.pictures import READING
from keras_cnv2.models.heads import activation_of, classes_of, kind_of
from keras_cnv2.models.pictures import PICTURE_CHANNELS, class_names, load_image_for, to_input

logger = logging.getLogger(__name__)

BATCH = 16

# Default number of classes to name.
TOP = 5


def add_reading_options(parser):
    """Adds the options for reading image files. Their values are `None` if they are not given."""
    parser.add_argument(
        "--exif-orientation",
        type=_true_or_false,
        metavar="true|false",
        help="whether images are rotated according to their EXIF data (default: true)",
    )
    parser.add_argument(
        "--max-pixels",
        type=positive,
        help=f"height times width of the largest image to decode (default: {MAX_PIXELS})",
    )


def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive int. Received: {text}")
    return int(text)


def _true_or_false(text):
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false. Received: {text}")
    return text == "true"


def find_pictures(arguments):
    """Yields the paths of image files. Other files in folders are logged in one line.

    Args:
        arguments: Iterable of paths of files, paths of folders, which are searched recursively, and glob patterns.
    """
    left_out = LeftOut()
    for argument in arguments:
        matches = [] if os.path.lexists(argument) else _matches(argument)
        for path in matches or [argument]:
            if os.path.isdir(path):
                yield from map(Path, pictures_below(path, left_out))
            else:
                yield path
    if left_out:
        logger.warning("left out, because they are not readable pictures: %s", left_out)


def _matches(pattern):
    """Returns the paths that match a glob pattern. `**` does not follow links, because they could form cycles."""
    if not set("*?[") & set(os.fspath(pattern)):
        return []
    anchor = Path(pattern).anchor
    try:
        found = [*Path(anchor).glob(str(Path(pattern).relative_to(anchor)))]
    except OSError:  # for example, a name is too long
        return []
    return sorted(str(path) for path in found if not path.name.startswith("."))


def pictures_at(arguments):
    """Returns the paths that `find_pictures` finds, as a list.

    Raises:
        FileNotFoundError: If none of the paths exists.
    """
    paths = [*find_pictures(arguments)]
    if not any(map(os.path.exists, paths)):
        raise FileNotFoundError(f"No image files found. Received: {' '.join(map(str, arguments))}")
    return paths


def predict(model, paths, top=TOP, names=None, reading=READING):
    """Classifies image files, one batch at a time.

    Args:
        model: A `keras_cnv2.ConvNeXtV2` with classes, or a model with another head that returns one row per image. Its
            `class_names`, `image_size` and `resize` are used. Without names, a `ConvNeXtV2` with 1000 classes gets
            ImageNet's names; in other models, classes are numbered.
        paths: Iterable of paths of image files.
        top: Int, how many classes to name.
        names: Optional list of strings, one per class.
        reading: `keras_cnv2.images.pictures.Reading`, how image files are read.

    Yields:
        Pairs (path, list of (name, probability)), the most probable class first. For a file that cannot be read as an
        image, the pair (path, error). A model without softmax or sigmoid returns its own values instead of
        probabilities, see `keras_cnv2.models.heads.kind_of`.

    Raises:
        ValueError: If the model does not return one row per image, does not take images of one or three channels, or
            returns values that are not probabilities although it has softmax or sigmoid.
    """
    check_classifier(model)
    names = class_names(model, names)
    paths = list(paths)
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        images = [_try_to_load(path, model, reading) for path in batch]
        readable = [image for image in images if not isinstance(image, Exception)]
        named = iter(_named(model, np.stack(readable), top, names) if readable else [])
        for path, image in zip(batch, images):
            yield path, image if isinstance(image, Exception) else next(named)


def _named(model, images, top, names):
    (values,) = keras.tree.flatten(model.predict_on_batch(to_input(model, images)))
    if kind_of(model) == "probabilities":
        return decode_predictions(values, top, names, activation_of(model.outputs[0]))
    return rank(values, top, names)


def check_classifier(model):
    """Raises a `ValueError` unless a model returns one row of values per image and takes one or three channels."""
    if classes_of(model) is None:
        raise ValueError(
            "These weights have no classes: the model is an encoder, or does not return one row per image. "
            f"Received: a {type(model).__name__}"
        )
    if model.input_shape[-1] not in PICTURE_CHANNELS:
        raise ValueError(
            "Image files have one or three channels, but the model takes another number. "
            f"Received: input_shape={model.input_shape}"
        )


def read_class_names(path):
    """Reads class names from a text file in UTF-8, one per line.

    Raises:
        ValueError: If the file is not UTF-8 text.
        OSError: If the file cannot be read.
    """
    try:
        return Path(path).read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"Class names must be in a text file (UTF-8), one per line. Received: {path}") from error


def _try_to_load(path, model, reading):
    try:
        return load_image_for(model, path, reading=reading)
    except (OSError, ValueError) as error:
        return error
