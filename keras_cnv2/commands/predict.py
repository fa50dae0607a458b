"""Pictures to names of classes and probabilities, or to the numbers that a model gives."""

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

# How many classes are named.
TOP = 5


def add_reading_options(parser):
    """Adds the options that say how pictures are read; `None` where they are not given."""
    parser.add_argument(
        "--exif-orientation",
        type=_true_or_false,
        metavar="true|false",
        help="whether pictures are turned as their EXIF data say (default: true)",
    )
    parser.add_argument(
        "--max-pixels",
        type=positive,
        help=f"height times width of the largest picture to decode (default: {MAX_PIXELS})",
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
    """Yields the paths of pictures. What else lies in folders is logged in one line.

    Args:
        arguments: Paths of files, of folders, which are searched with all that is in them, and glob patterns.
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
        logger.warning("left out, as they are no pictures that are read: %s", left_out)


def _matches(pattern):
    """The paths that fit a glob pattern; `**` does not follow links, which may lead anywhere and back."""
    if not set("*?[") & set(os.fspath(pattern)):
        return []
    anchor = Path(pattern).anchor
    try:
        found = [*Path(anchor).glob(str(Path(pattern).relative_to(anchor)))]
    except OSError:  # a name that is too long
        return []
    return sorted(str(path) for path in found if not path.name.startswith("."))


def pictures_at(arguments):
    """The paths that `find_pictures` finds, as a list.

    Raises:
        FileNotFoundError: If none of them is there.
    """
    paths = [*find_pictures(arguments)]
    if not any(map(os.path.exists, paths)):
        raise FileNotFoundError(f"No pictures there. Received: {' '.join(map(str, arguments))}")
    return paths


def predict(model, paths, top=TOP, names=None, reading=READING):
    """Classifies pictures, a batch at a time.

    Args:
        model: A `keras_cnv2.ConvNeXtV2` with classes, or a model with another head that gives one row for an image. Its
            `class_names`, `image_size` and `resize` are used; without names, 1000 classes of the former are ImageNet's
            and others are numbered.
        paths: Paths of pictures.
        top: Int, how many classes to name.
        names: Optional list of strings, one a class.
        reading: `keras_cnv2.images.pictures.Reading`, how pictures are read.

    Yields:
        Pairs of a path and, the most probable first, its list of (name, probability); or of a path and the error, if
        it is no picture that can be read. A model without softmax or sigmoid gives its own numbers in their place, see
        `keras_cnv2.models.heads.kind_of`.

    Raises:
        ValueError: If the model gives no row for each picture, or takes other than RGB or grey ones, or what it gives
            are no probabilities though they should be.
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
    """Raises a `ValueError` if a model does not give a row of numbers for each picture."""
    if classes_of(model) is None:
        raise ValueError(
            "These weights have no classes: they are an encoder's, or of a model with other outputs than one row an "
            f"image. Received: a {type(model).__name__}"
        )
    if model.input_shape[-1] not in PICTURE_CHANNELS:
        raise ValueError(
            f"Pictures have one or three channels, the model has others. Received: input_shape={model.input_shape}"
        )


def read_class_names(path):
    """The names of classes in a text file, one a line.

    Raises:
        ValueError: If it is no text.
        OSError: If it cannot be read.
    """
    try:
        return Path(path).read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"Names of classes are in a text file (UTF-8), one a line. Received: {path}") from error


def _try_to_load(path, model, reading):
    try:
        return load_image_for(model, path, reading=reading)
    except (OSError, ValueError) as error:
        return error
