"""How a picture is to be turned: cameras store the sensor's rows, and a tag that says which side was up. In graphs.

The tag is EXIF's, of JPEG, PNG (chunk eXIf) and WebP files. Orientations that stand in XMP alone do not count.
"""

import functools

from keras_cnv2.images.header import JPEG, MAX_BLOCKS, PNG, number, part, starts

UPRIGHT = 1

# Of these the columns, of those the rows are stored from the last to the first, once rows are columns where they must.
MIRRORED, FLIPPED = (2, 3, 6, 7), (3, 4, 7, 8)
TRANSPOSED = 5  # from this one on, rows are stored as columns

_TAG = 0x112
_SHORT, _LONG = (3, 8), (4, 9)  # with and without a sign
_IN_PLACE = 4  # bytes: of more values, an entry holds where they are
_EXIF = b"Exif\x00\x00"


def orientation_of(contents):
    """The orientation that a picture's EXIF data state.

    Args:
        contents: Scalar string tensor, an encoded picture.

    Returns:
        An int32 scalar from 1 to 8; 1, upright, where there is none, or none that makes sense.
    """
    return _orientation_of()(contents)


def turned(pixels, orientation):
    """The picture as it is meant to be seen.

    Args:
        pixels: Tensor `(height, width, channels)`, as stored.
        orientation: Int32 scalar from 1 to 8.
    """
    import tensorflow as tf

    def turn():
        rows = tf.cond(orientation >= TRANSPOSED, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
        return tf.reverse(rows, tf.boolean_mask([0, 1], _from_the_end(orientation)))

    return tf.ensure_shape(tf.cond(orientation == UPRIGHT, lambda: pixels, turn), (None, None, pixels.shape[-1]))


def turned_sides(sides, orientation):
    """Height and width as they are seen, of those stored, or the other way round."""
    import tensorflow as tf

    return tf.where(orientation >= TRANSPOSED, tf.reverse(sides, [0]), sides)


def stored_window(corner, extent, sides, orientation):
    """Where the pixels of a window are stored.

    Args:
        corner, extent: Int32 tensors, top and left, height and width of a window in the picture as it is seen.
        sides: Int32 tensor, height and width of that picture.
        orientation: Int32 scalar from 1 to 8.

    Returns:
        Corner and extent in the picture as stored. What they hold, `turned`, is the window.
    """
    import tensorflow as tf

    corner = tf.where(_from_the_end(orientation), sides - corner - extent, corner)
    return turned_sides(corner, orientation), turned_sides(extent, orientation)


def _from_the_end(orientation):
    """Whether rows, and whether columns, are stored from the last to the first, as they are seen."""
    import tensorflow as tf

    return tf.stack([tf.reduce_any(orientation == orientations) for orientations in (FLIPPED, MIRRORED)])


@functools.cache  # as TensorFlow is not imported with the package; a graph, as one block after another takes long
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

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def orientation_of(contents):
        head = part(contents, 0, 32)
        # The flags of an extended WebP, of which one announces EXIF data.
        is_webp = starts(head, b"WEBPVP8X", 8) & (number(part(head, 20, 1)) & 8 > 0)
        name = tf.where(starts(head, JPEG), _EXIF, tf.where(starts(head, PNG), b"eXIf", b"EXIF"))
        can_be = starts(head, JPEG) | starts(head, PNG) | is_webp
        # To look for the name anywhere takes a tenth of the time of a walk, and most pictures have no such data.
        may_be = tf.cond(can_be, lambda: tf.size(tf.strings.split(contents, name, maxsplit=1)) > 1, lambda: False)
        return tf.cond(may_be, lambda: _orientation_in(exif_of(contents, head)), lambda: UPRIGHT)

    return orientation_of


def _nothing():
    import tensorflow as tf

    return tf.constant(0), tf.constant(0)


def _exif_of_jpeg(contents):
    """Where EXIF data begin in a JPEG, and how long they are; 0 if there are none."""
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
    """The same in a file of chunks, each with a length and a name, in PNG and in WebP."""
    import tensorflow as tf

    end = tf.strings.length(contents)

    def walk(at, start, length):
        chunk = part(contents, at, 8)
        lengths = tf.io.decode_raw(tf.strings.substr(chunk, 0 if of_png else 4, 4), tf.int32, little_endian=not of_png)
        size = lengths[0]
        is_exif = tf.strings.substr(chunk, 4 if of_png else 0, 4) == name
        step = 12 + size if of_png else 8 + size + size % 2
        # A length of 2 GB or more is negative.
        is_last = is_exif | (size < 0) | (size > end - at)
        found = tf.where(is_exif, at + 8, 0), tf.where(is_exif, tf.minimum(size, end - at - 8), 0)
        return (tf.where(is_last, end, at + step), *found)

    _, start, length = tf.while_loop(
        lambda at, start, length: at < end - 8, walk, (first, *_nothing()), maximum_iterations=MAX_BLOCKS
    )
    return start, length


def _orientation_in(exif):
    """The orientation in EXIF data, which are a TIFF file: a header, and a directory of 12 bytes for each tag."""
    import tensorflow as tf

    exif = tf.cond(starts(part(exif, 0, 6), _EXIF), lambda: tf.strings.substr(exif, 6, -1), lambda: exif)
    head = part(exif, 0, 8)
    is_little = starts(head, b"II")
    # The number 42 behind it, which some write in the other order. BigTIFF has 43, and other directories.
    is_tiff = (is_little | starts(head, b"MM")) & (starts(head, b"*\0", 2) | starts(head, b"\0*", 2))

    def orientation():
        length = tf.cast(tf.strings.length(exif), tf.int64)
        at = tf.minimum(number(part(head, 4, 4), is_little), length)
        count = tf.minimum(number(part(exif, at, 2), is_little), tf.maximum(length - at - 2, 0) // 12)
        entries = tf.strings.substr(exif, tf.minimum(at + 2, length), 12 * count)
        entries = tf.where(is_little, *(tf.io.decode_raw(entries, tf.uint16, little) for little in (True, False)))
        entries = tf.cast(tf.reshape(entries, (-1, 6)), tf.int32)
        # Number of the tag, type, then the count and the value, of four bytes each.
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
