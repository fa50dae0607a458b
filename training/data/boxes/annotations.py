"""Pictures and their boxes, as read from annotation files."""

import logging
import os
import stat
from collections import Counter
from typing import NamedTuple

import numpy as np

from keras_cnv2.images.folders import LeftOut
from keras_cnv2.images.pictures import SUFFIXES

from ...errors import DataError
from ..errors import quote, say_left_out
from ..headers import fault_of
from .masks import areas_of as areas_of_masks

logger = logging.getLogger(__name__)

# Largest side or coordinate in pixels. Float32 cannot represent all larger integers, and no picture is larger.
LARGEST = 2**24

# Annotations are rounded: boxes that exceed their picture by up to this many pixels are clipped without a warning.
ROUNDING = 1.0


class Example(NamedTuple):
    """A picture and the objects in it.

    Args:
        path: Path of the picture; the file may be missing.
        id: The picture's id in the annotations.
        width, height: Size of the picture in pixels.
        boxes: Float32 array `(objects, 4)`: left, top, right, bottom in pixels, measured from the picture's top left
            corner. The box 0, 0, 1, 1 covers just the first pixel.
        classes: Int array `(objects,)`.
        crowd: Bool array `(objects,)`, true for objects that are not trained on and that evaluation ignores: COCO's
            crowds and Pascal VOC's difficult objects.
        areas: Float32 array `(objects,)`, areas of the objects in pixels. COCO's small, medium and large depend on
            them.
        masks: List of bytes, the mask of each object as `training.data.boxes.masks` encodes it, of the size of the
            picture; or `None`, if the annotations have no masks.
    """

    path: str
    id: str
    width: int
    height: int
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    masks: list | None = None


class Annotations(NamedTuple):
    """Examples for training and validation, and the names of their classes."""

    train: list
    validation: list
    class_names: tuple


def number(what, value, largest=LARGEST):
    """Checks and returns a number in an annotation. NaN is accepted, since `cleaned` drops boxes with NaN.

    Raises:
        ValueError: If the value is not a number, or is too large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > largest:
        raise ValueError(f"{what} must be a number up to {largest}, it is {str(value)[:40]}")
    return value


def side(what, value):
    """Checks and returns the side of a picture in an annotation, in pixels.

    Raises:
        ValueError: If the value is not a positive whole number, or is too large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= LARGEST or value % 1:
        raise ValueError(f"{what} must be a whole number from 1 to {LARGEST}, it is {str(value)[:40]}")
    return int(value)


def cleaned(annotations, path):
    """Removes files that are not readable pictures, clips boxes to their pictures and removes empty boxes and masks.

    Logs once how many objects were changed or removed.

    Args:
        annotations: `Annotations`.
        path: The data's path, for messages.

    Returns:
        `Annotations`. Pictures without boxes stay.

    Raises:
        DataError: If no box is left for training, or without training pictures, for validation.
    """
    counts, left_out = Counter(), LeftOut()
    train, validation = (
        [_clean(example, counts) for example in split if _is_picture(example.path, left_out)]
        for split in annotations[:2]
    )
    say_left_out(path, left_out)
    if not any(len(example.boxes) for example in train or validation):
        raise DataError(f"There are no objects in the annotations. Received: {path}")
    if counts:
        logger.warning("%s: %s", path, ", ".join(f"{count} {what}" for what, count in counts.items()))
    return Annotations(train, validation, annotations.class_names)


def _is_picture(path, left_out):
    """Returns whether a path may be a picture. A missing file may: it counts as unreadable later."""
    suffix = os.path.splitext(path)[1].lower()
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
        is_other = is_file and suffix not in ("", *SUFFIXES) and fault_of(path) is not None
    except FileNotFoundError:
        return True
    except OSError:  # e.g. missing permissions, circular links, names that are too long
        is_file = is_other = False
    if is_other:
        left_out.suffixes[suffix] += 1
    elif not is_file:
        left_out.others.append(path)
    return is_file and not is_other


def _clean(example, counts):
    boxes = example.boxes
    has_mask = np.ones(len(boxes), bool)
    if example.masks:
        has_mask = areas_of_masks(example.masks, example.height, example.width) > 0
    sides = np.array([example.width, example.height] * 2, "float32")
    inside = boxes.clip(0, sides)
    if len(boxes) and (inside == boxes).all() and (inside[:, 2:] > inside[:, :2]).all() and has_mask.all():
        return example  # the usual case
    # These comparisons are false for NaN, so boxes with NaN are removed.
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    is_inside = (inside[:, 2:] > inside[:, :2]).all(axis=1)
    kept = is_inside & has_mask
    sticks_out = kept & (np.abs(inside - boxes) > ROUNDING).any(axis=1)
    for what, which in (
        ("boxes clipped at the border of their picture", sticks_out),
        ("boxes without area left out", ~has_area),
        ("boxes outside of their picture left out", has_area & ~is_inside),
        ("objects with a mask without area left out", is_inside & ~has_mask),
        ("pictures without boxes", np.array([not kept.any()])),
    ):
        if which.any():
            counts[what] += int(which.sum())
    masks = example.masks and [mask for mask, is_kept in zip(example.masks, kept) if is_kept]
    return example._replace(
        boxes=inside[kept],
        classes=example.classes[kept],
        crowd=example.crowd[kept],
        areas=example.areas[kept],
        masks=masks,
    )


def areas_of(boxes):
    """Returns the areas `(objects,)` of boxes `(objects, 4)` in pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def check_known(names, class_names, whose, path):
    """Raises a `DataError` if some names are not in `class_names`."""
    unknown = sorted({*names} - {*class_names})
    if unknown:
        raise DataError(
            f"{whose} has unknown classes: {quote(unknown)}; the known ones are {quote([*class_names])}. "
            f"Received: {path}"
        )
