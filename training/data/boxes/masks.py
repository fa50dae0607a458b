"""Masks of objects as COCO's compressed run lengths: a string of bytes for each mask, small enough to keep in memory.

The runs count pixels column by column, see `pycocotools.mask`. The size of the picture is not part of the string.
"""

import numpy as np

# Bits of the longest number in a string of runs. Without this limit, a damaged file of a few megabytes without the end
# of a number would take minutes.
LONGEST = 60

# Longest outline of a mask in pixels, and most pixels of a picture. No mask has a longer outline; a damaged file with
# one would take all memory, since pycocotools lists the points of outlines. It counts pixels with 32 bits.
LONGEST_OUTLINE, MOST_PIXELS = 2**22, 2**32 - 1


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
        counts: Sequence of bytes, as `encode` returns them for pictures of this size.
        height, width: Ints, the size of the picture in pixels.

    Returns:
        A uint8 array `(objects, height, width)` of 0 and 1.
    """
    from pycocotools import mask

    if not len(counts):
        return np.zeros((0, height, width), "uint8")
    return mask.decode(_rows(counts, height, width)).transpose(2, 0, 1)


def sample(counts, height, width, rows, columns):
    """Decodes masks and takes some of their pixels: parts of resized masks, by nearest neighbour.

    Args:
        counts, height, width: As in `decode`.
        rows, columns: Int arrays `(m,)` and `(n,)`, which rows and columns of the picture are taken; -1 for what is
            outside of it.

    Returns:
        A uint8 array `(objects, m, n)` of 0 and 1, with 0 outside of the picture.
    """
    taken = np.empty((len(counts), len(rows), len(columns)), "uint8")
    # One after the other, because large pictures with many objects would fill the memory.
    for place, one in enumerate(counts):
        (mask,) = decode([one], height, width)
        # Decoded masks are stored column by column, so that this order copies whole columns and then whole rows.
        taken[place] = mask.T.take(columns, axis=0, mode="clip").T.take(rows, axis=0, mode="clip")
        taken[place, rows < 0] = 0
        taken[place][:, columns < 0] = 0
    return taken


def from_polygons(polygons, height, width):
    """Encodes the union of polygons, whose edges COCO's rule rounds to pixels.

    Args:
        polygons: List of lists of numbers: x, y, x, y, ... in pixels from the picture's top left corner.
        height, width: Ints, the size of the picture in pixels.

    Returns:
        Bytes.

    Raises:
        ValueError: If the outline or the picture is too large.
    """
    from pycocotools import mask

    _check_pixels(height, width)
    length = sum(map(_outline, polygons))
    if length > LONGEST_OUTLINE:
        raise ValueError(f"the outline of a mask must be at most {LONGEST_OUTLINE} pixels long, it is {length:.0f}")
    return mask.merge(mask.frPyObjects(polygons, height, width))["counts"]


def from_runs(runs, height, width):
    """Encodes a mask given as a list of ints: how many pixels are outside, inside, outside, ... column by column.

    Raises:
        ValueError: If the runs are not as many pixels as the picture has, of which pycocotools takes no notice, or the
            picture is too large.
    """
    from pycocotools import mask

    _check_pixels(height, width)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"the runs of a mask must add up to its {height} x {width} pixels, they have {sum(runs)}")
    return mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]


def _check_pixels(height, width):
    if height * width > MOST_PIXELS:
        raise ValueError(f"a picture with masks must have at most {MOST_PIXELS} pixels, it has {width} x {height}")


def _outline(polygon):
    """Returns how many pixels the edges of a polygon have, without the last edge, which is not longer than the rest."""
    return np.abs(np.diff(np.reshape(polygon, (-1, 2)), axis=0)).max(axis=1).sum()


def runs_of(counts):
    """Returns the runs of a mask, which `from_runs` encodes: a list of ints.

    A number takes several bytes of 5 bits each, the lowest first; bit 5 of a byte says that another one follows, bit 4
    of the last one is the sign. From the fourth number on, each is the difference from the last but one.

    Args:
        counts: Bytes.

    Raises:
        ValueError: If these bytes are no runs.
    """
    runs, value, shift = [], 0, 0
    for byte in counts:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise ValueError("the runs of a mask have characters that COCO's run lengths do not have")
        value |= (bits & 31) << shift
        shift += 5
        if shift > LONGEST:
            raise ValueError("the runs of a mask have a number that is larger than any picture")
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError("the runs of a mask end in the middle of a number")
    return runs


def boxes_of(counts, height, width):
    """Returns the boxes around masks, float32 `(objects, 4)`: left, top, right, bottom; all 0 for empty masks."""
    from pycocotools import mask

    if not len(counts):
        return np.zeros((0, 4), "float32")
    left, top, wide, high = mask.toBbox(_rows(counts, height, width)).T
    return np.stack([left, top, left + wide, top + high], axis=1).astype("float32")


def boxes_around(masks):
    """Returns the tight boxes around masks that are not encoded: float32 `(objects, 4)` as in `boxes_of`.

    Args:
        masks: Bool or uint8 array `(objects, height, width)`, not 0 where the object is.
    """
    ends = []
    for axis in (1, 2):
        seen = masks.max(axis=axis).astype(bool)  # which columns, then which rows
        first, last = seen.argmax(axis=1), seen.shape[1] - seen[:, ::-1].argmax(axis=1)
        ends.append(np.where(seen.any(axis=1), (first, last), 0))
    (left, right), (top, bottom) = ends
    return np.stack([left, top, right, bottom], axis=1).astype("float32")


def areas_of(counts, height, width):
    """Returns the numbers of pixels of masks, float32 `(objects,)`."""
    from pycocotools import mask

    return mask.area(_rows(counts, height, width)).astype("float32") if len(counts) else np.zeros(0, "float32")


def _rows(counts, height, width):
    return [{"size": [height, width], "counts": one} for one in counts]
