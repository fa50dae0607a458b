"""Class names for segmentation: given by the user, read from the data folder, or counted in the labels."""

import logging
import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_cnv2.images.classes import numbered

from ...errors import DataError
from ..errors import check_names
from ..loader import CORES
from .labels import decode_labels, holds_numbers

logger = logging.getLogger(__name__)

# Files of class names in a data folder: one name per line, or ADE20K's table with the names in its last column.
CLASSES_FILE = "classes.txt"
ADE20K_FILE = "objectInfo150.txt"


def given_names(classes):
    """Returns class names from a list of names, a file or a number of classes; `None` for `None`."""
    if classes is None:
        return None
    names = classes
    if isinstance(classes, (str, os.PathLike)) and not str(classes).isdecimal():
        names = [line.strip() for line in _lines(Path(classes)) if line.strip()]
    elif isinstance(classes, (str, int)):
        names = numbered(int(classes))
    names = tuple(map(str, names))
    if not names:
        raise DataError(f"classes must be names, a file with one a line, or a number above 0. Received: {classes}")
    check_names(names)
    return names


def names_beside(path):
    """Returns the class names in the folder's file, `None` if there is no such file."""
    if (path / CLASSES_FILE).is_file():
        return given_names(path / CLASSES_FILE)
    if (path / ADE20K_FILE).is_file():
        lines = _lines(path / ADE20K_FILE)[1:]
        # A class may have several synonyms; the first is used.
        return given_names([line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip()])
    return None


def _lines(file):
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"This is not a list of classes in UTF-8: {error}. Received: {file}") from error
    except OSError as error:
        raise DataError(f"This list of classes cannot be read ({error.strerror}). Received: {file}") from error


def counted_names(contents, ignore_label, reduce_zero_label, source):
    """Returns names "class 0" etc. for all classes up to the greatest number in all labels.

    Args:
        contents: `Dataset` of encoded labels.
        ignore_label, reduce_zero_label: As in `training.data.scenes.folders.SceneFolder`.
        source: Where the labels come from, for messages.
    """
    logger.info("Counting the classes in all labels, as there is no list of them: %s", source)

    def greatest(contents):
        numbers = decode_labels(contents)
        # A colour PNG holds no class numbers; it is refused when it is loaded.
        counts = (numbers != ignore_label) & holds_numbers(contents)
        return tf.reduce_max(tf.where(counts, numbers, -1))

    found = contents.map(greatest, num_parallel_calls=CORES).ignore_errors()
    count = int(found.reduce(np.int32(-1), tf.maximum)) + 1 - int(reduce_zero_label)
    if count < 1:
        raise DataError(f"There are no classes in the labels, only what is ignored. Received: {source}")
    logger.info("%d classes in the labels of %s", count, source)
    return given_names(count)
