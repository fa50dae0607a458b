"""Reads the sizes of picture files from their headers."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import tensorflow as tf

from keras_cnv2.images.header import JPEG, picture_size
from keras_cnv2.images.orientation import turned_sides

from ..drawing.progress import progress_of
from .headers import HEADS, THREADS


class Size(NamedTuple):
    """Width and height of a picture in pixels, as stored and upright: two pairs of ints."""

    stored: tuple
    upright: tuple


def sizes_of(files, reading):
    """Reads the sizes of pictures.

    Args:
        files: Sequence of paths.
        reading: `keras_cnv2.images.pictures.Reading`, whether the EXIF orientation is applied.

    Returns:
        A list of `Size`, `None` for files that are missing or are no pictures.
    """
    files = [*files]
    # The first one alone: it builds the graphs, which otherwise each thread would build.
    first = [_size_of(file, reading) for file in files[:1]]
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = pool.map(lambda file: _size_of(file, reading), files[1:])
        return [*first, *progress_of(sizes, len(files) - 1, "reading sizes of pictures")]


def _size_of(file, reading):
    try:
        with open(file, "rb") as opened, tf.device("cpu"):
            head, sides = _head_and_sides(opened)
            if sides is None:
                return None
            # The EXIF data of a JPEG come before its size, those of a PNG or WebP often last.
            if reading.exif_orientation and not head.startswith(JPEG):
                head += opened.read()
            upright = turned_sides(tf.stack(sides), reading.orientation(head))
            return Size(*(tuple(map(int, pair[::-1])) for pair in (sides, upright.numpy())))
    except OSError:
        return None


def _head_and_sides(opened):
    """Reads as much of a file as needed for its height and width. Returns this part and both, `None` without them."""
    head = b""
    for count in HEADS:
        head += opened.read(count)
        try:
            sides = [*map(int, picture_size(head))]
        except tf.errors.OpError:
            continue
        return head, sides if min(sides) > 0 else None
    return head, None
