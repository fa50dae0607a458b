"""EXIF orientation: how an image must be rotated and mirrored to be upright. All functions work in graphs.

Cameras store the rows as the sensor reads them, and a tag that says which side was up. The tag is read from the EXIF
data of JPEG, PNG (chunk eXIf) and WebP files. Orientations in XMP data are ignored.
"""

import functools

from keras_cnv2.images.header import JPEG, MAX_BLOCKS, PNG, number, part, starts

UPRIGHT = 1

# Orientations whose columns, and whose rows, are stored in reverse order (after transposing, from 5 on).
MIRRORED, FLIPPED = (2, 3, 6, 7), (3, 4, 7, 8)
TRANSPOSED = 5  # from this orientation on, rows are stored as columns

_TAG = 0x112
_SHORT, _LONG = (3, 8), (4, 9)  # TIFF types of 2 and 4 bytes, unsigned and signed
_IN_PLACE = 4  # bytes; if the values of an entry take more, the entry contains their position instead
_EXIF = b"Exif\x00\x00"


def orientation_of(contents):
    """Reads the orientation from the EXIF data of an encoded image.

    Args:
        contents: Scalar string tensor, an encoded image.

    Returns:
        An int32 scalar from 1 to 8; 1 (upright) if there is no orientation or an invalid one.
    """
    return _orientation_of()(contents)


def turned(pixels, orientation):
    """Rotates and mirrors an image so that it is upright.

    Args:
        pixels: Tensor `(height, width, channels)`, as stored.
        orientation: Int32 scalar from 1 to 8.

    Returns:
        A tensor of the same dtype, with height and width exchanged from orientation 5 on.
    """
    import tensorflow as tf

    def turn():
        rows = tf.cond(orientation >= TRANSPOSED, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
        return tf.reverse(rows, tf.boolean_mask([0, 1], _from_the_end(orientation)))

    return tf.ensure_shape(tf.cond(orientation == UPRIGHT, lambda: pixels, turn), (None, None, pixels.shape[-1]))


def turned_sides(sides, orientation):
    """Converts height and width between the stored and the upright image, in either direction."""
    import tensorflow as tf

    return tf.where(orientation >= TRANSPOSED, tf.reverse(sides, [0]), sides)


def stored_window(corner, extent, sides, orientation):
    """Converts a window in the upright image to the window of the stored image that holds the same pixels.

    Args:
        corner: Int32 tensor, top and left of the window in the upright image, in pixels.
        extent: Int32 tensor, height and width of the window, in pixels.
        sides: Int32 tensor, height and width of the upright image, in pixels.
        orientation: Int32 scalar from 1 to 8.

    Returns:
        Corner and extent in the stored image. Their pixels, after `turned`, are the window.
    """
    import tensorflow as tf

    corner = tf.where(_from_the_end(orientation), sides - corner - extent, corner)
    return turned_sides(corner, orientation), turned_sides(extent, orientation)


def _from_the_end(orientation):
    """Whether the rows, and whether the columns, of the upright image are stored in reverse order."""
    import tensorflow as tf

    return tf.stack([tf.reduce_any(orientation == orientations) for orientations in (FLIPPED, MIRRORED)])


@functools.cache  # lazy, because the package does not import TensorFlow; a graph, because eager loops are slow
def _orientation_of():
    import tensorflow as tf

    def exif_of(contents, head):
        start, length = tf.case(
            [
                (starts(head, JPEG), lambda: _exif_of_jpeg(contents)),
                (starts(head, PNG), lambda: _exif_of_chunks(contents, 8, b"eXIf", of_png=True)),
            ],
            default=lambda: _exif_of_chunks(contents, 12, b"EXIF", of_png=False),
            exclusive=False,
        )
        return tf.strings.substr(contents, start, length)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def orientation_of(contents):
        head = part(contents, 0, 32)
        # Only an extended WebP has EXIF data, which bit 3 of its flags declares.
        is_webp = starts(head, b"WEBPVP8X", 8) & (number(part(head, 20, 1)) & 8 > 0)
        name = tf.where(starts(head, JPEG), _EXIF, tf.where(starts(head, PNG), b"eXIf", b"EXIF"))
        can_be = starts(head, JPEG) | starts(head, PNG) | is_webp
        # Searching the bytes for the name takes a tenth of the time of parsing all blocks, and most images have no EXIF
        # data.
        may_be = tf.cond(can_be, lambda: tf.size(tf.strings.split(contents, name, maxsplit=1)) > 1, lambda: False)
        return tf.cond(may_be, lambda: _orientation_in(exif_of(contents, head)), lambda: UPRIGHT)

    return orientation_of


def _nothing():
    import tensorflow as tf

    return tf.constant(0), tf.constant(0)


def _exif_of_jpeg(contents):
    """Returns the position and the length of the EXIF data in a JPEG; zeros if there are none."""
    import tensorflow as tf

    end = tf.strings.length(contents)

    def walk(at, start, length):
        block = tf.cast(tf.io.decode_raw(part(contents, at, 10), tf.uint8), tf.int32)
        marker, size = block[1], 256 * block[2] + block[3]
        is_filling = (block[0] != 0xFF) | (marker == 0xFF)
        has_no_length = (marker <= 1) | ((marker >= 0xD0) & (marker <= 0xD9))
        is_exif = ~is_filling & (marker == 0xE1) & tf.reduce_all(block[4:] == [*_EXIF]) & (size > 8)
        is_last = ~is_filling & (marker == 0xDA)  # pixels follow
        step = tf.where(is_filling, 1, tf.where(has_no_length, 2, 2 + tf.maximum(size, 2)))
        found = tf.where(is_exif, at + 10, 0), tf.where(is_exif, tf.minimum(size - 8, end - at - 10), 0)
        return (tf.where(is_exif | is_last, end, at + step), *found)

    _, start, length = tf.while_loop(
        lambda at, start, length: at < end - 10, walk, (2, *_nothing()), maximum_iterations=1000
    )
    return start, length


def _exif_of_chunks(contents, first, name, of_png):
    """Like `_exif_of_jpeg`, for PNG and WebP, whose chunks have a length and a name each."""
    import tensorflow as tf

    end = tf.strings.length(contents)

    def walk(at, start, length):
        chunk = part(contents, at, 8)
        lengths = tf.io.decode_raw(tf.strings.substr(chunk, 0 if of_png else 4, 4), tf.int32, little_endian=not of_png)
        size = lengths[0]
        is_exif = tf.strings.substr(chunk, 4 if of_png else 0, 4) == name
        step = 12 + size if of_png else 8 + size + size % 2
        # As an int32, a length of 2 GB or more is negative.
        is_last = is_exif | (size < 0) | (size > end - at)
        found = tf.where(is_exif, at + 8, 0), tf.where(is_exif, tf.minimum(size, end - at - 8), 0)
        return (tf.where(is_last, end, at + step), *found)

    _, start, length = tf.while_loop(
        lambda at, start, length: at < end - 8, walk, (first, *_nothing()), maximum_iterations=MAX_BLOCKS
    )
    return start, length


def _orientation_in(exif):
    """Reads the orientation from EXIF data: a TIFF file with a header, and a directory with 12 bytes per tag."""
    import tensorflow as tf

    exif = tf.cond(starts(part(exif, 0, 6), _EXIF), lambda: tf.strings.substr(exif, 6, -1), lambda: exif)
    head = part(exif, 0, 8)
    is_little = starts(head, b"II")
    # The number 42 follows, which some programs write in the other byte order. BigTIFF has 43 and another layout.
    is_tiff = (is_little | starts(head, b"MM")) & (starts(head, b"*\0", 2) | starts(head, b"\0*", 2))

    def orientation():
        length = tf.cast(tf.strings.length(exif), tf.int64)
        at = tf.minimum(number(part(head, 4, 4), is_little), length)
        count = tf.minimum(number(part(exif, at, 2), is_little), tf.maximum(length - at - 2, 0) // 12)
        entries = tf.strings.substr(exif, tf.minimum(at + 2, length), 12 * count)
        entries = tf.where(is_little, *(tf.io.decode_raw(entries, tf.uint16, little) for little in (True, False)))
        entries = tf.cast(tf.reshape(entries, (-1, 6)), tf.int32)
        # An entry has a tag and a type of two bytes each, and a count and a value of four bytes each.
        tag, kind = entries[:, 0], entries[:, 1]
        is_short, is_long = (tf.reduce_any(kind[:, None] == kinds, 1) for kinds in (_SHORT, _LONG))
        count, value = (tf.where(is_little, pair, pair[:, ::-1]) for pair in (entries[:, 2:4], entries[:, 4:]))
        size = count[:, 0] * tf.where(is_short, 2, 4)
        is_here = (count[:, 1] == 0) & (size > 0) & (size <= _IN_PLACE)
        values = tf.where(is_short, entries[:, 4], tf.where(value[:, 1] == 0, value[:, 0], 0))
        found = tf.boolean_mask(values, (tag == _TAG) & (is_short | is_long) & is_here)
        first = tf.concat([found, [UPRIGHT]], 0)[0]
        return tf.where((first >= 1) & (first <= 8), first, UPRIGHT)

    return tf.cond(is_tiff, orientation, lambda: UPRIGHT)
