"""Masks of objects as COCO's compressed run lengths: a string of bytes for each mask, small enough to keep in memory.

The runs count pixels column by column, see `pycocotools.mask`. The size of the picture is not part of the string.
"""

import numpy as np


def require_pycocotools():
    """Raises an `ImportError` that says what to install if pycocotools is missing."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise ImportError(f'Masks need pycocotools: pip install "keras_cnv2[detection]" ({error})') from error


def encode(masks):
    """Encodes masks.

    Args:
        masks: Array `(objects, height, width)`, not 0 where the object is.

    Returns:
        A list of bytes, one string for each object.
    """
    from pycocotools import mask

    planes = np.asfortranarray((np.asarray(masks) != 0).transpose(1, 2, 0), "uint8")
    return [one["counts"] for one in mask.encode(planes)]


def decode(counts, height, width):
    """Decodes masks.

    Args:
        counts: Sequence of bytes, as `encode` returns them.
        height, width: Ints, the size of the picture in pixels.

    Returns:
        A uint8 array `(objects, height, width)` of 0 and 1.

    Raises:
        ValueError: If the runs of a mask are not as many pixels as the picture has.
    """
    from pycocotools import mask

    if not len(counts):
        return np.zeros((0, height, width), "uint8")
    return mask.decode(_rows(counts, height, width)).transpose(2, 0, 1)


def from_polygons(polygons, height, width):
    """Encodes the union of polygons, whose edges COCO's rule rounds to pixels.

    Args:
        polygons: List of lists of numbers: x, y, x, y, ... in pixels from the picture's top left corner.
        height, width: Ints, the size of the picture in pixels.

    Returns:
        Bytes.
    """
    from pycocotools import mask

    return mask.merge(mask.frPyObjects(polygons, height, width))["counts"]


def from_runs(runs, height, width):
    """Encodes a mask given as a list of ints: how many pixels are outside, inside, outside, ... column by column."""
    from pycocotools import mask

    return mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]


def boxes_of(counts, height, width):
    """Returns the boxes around masks, float32 `(objects, 4)`: left, top, right, bottom; all 0 for empty masks."""
    from pycocotools import mask

    if not len(counts):
        return np.zeros((0, 4), "float32")
    left, top, wide, high = mask.toBbox(_rows(counts, height, width)).T
    return np.stack([left, top, left + wide, top + high], axis=1).astype("float32")


def areas_of(counts, height, width):
    """Returns the numbers of pixels of masks, float32 `(objects,)`."""
    from pycocotools import mask

    return mask.area(_rows(counts, height, width)).astype("float32") if len(counts) else np.zeros(0, "float32")


def _rows(counts, height, width):
    return [{"size": [height, width], "counts": one} for one in counts]
