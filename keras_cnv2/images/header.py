"""The size of a picture, from its first bytes: what decides whether it may be decoded at all. In graphs."""

import functools
from typing import Any, NamedTuple

# Larger pictures are not decoded: 150 MB of pixels.
MAX_PIXELS = 50_000_000

JPEG, PNG, WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"WEBP"

# How many blocks of a file are looked at. More are no picture's, but meant to take long.
MAX_BLOCKS = 50_000

_FLOAT_BYTES = 4

# Of a GIF: its header with the size of the screen, and the first bytes of blocks.
_SCREEN = 13
_EXTENSION, _FRAME = 0x21, 0x2C


def pixel_limit(max_pixels):
    """The limit as an int64 scalar, in graphs. What is larger than any is no limit."""
    import tensorflow as tf

    return tf.constant(min(max_pixels, tf.int64.max), tf.int64)


def needed_pixels(height, width, size=0):
    """What a picture takes in memory until it is an image of `size` pixels, in pixels of a picture.

    Resizing holds all rows at the new width, or all columns at the new height, as floats.
    """
    import tensorflow as tf

    return tf.maximum(height * tf.maximum(width, _FLOAT_BYTES * size), width * size)


def picture_size(contents):
    """Height and width that the header of a picture states, in graphs.

    A few bytes can claim a picture that fills the memory, and decoders allocate what is claimed.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG, WebP, BMP or GIF.

    Returns:
        Two int64 scalars; zeros if it is none of these. An error is raised for some that are damaged.
    """
    return _picture_size()(contents)


@functools.cache  # as TensorFlow is not imported with the package; a graph, as it is made but once
def _picture_size():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def picture_size(contents):
        head = part(contents, 0, 32)

        def at(place, count, is_little=True):
            return number(part(head, place, count), is_little)

        def jpeg():
            return tuple(
                tf.cast(side, tf.int64) for side in tf.unstack(tf.io.extract_jpeg_shape(contents, tf.int32))[:2]
            )

        def webp_lossless():
            bits = at(21, 4)
            return bits // 2**14 % 2**14 + 1, bits % 2**14 + 1

        def bmp():
            height = at(22, 4)
            return tf.minimum(height, 2**32 - height), at(18, 4)  # negative where rows come from the top down

        def gif():
            frame = gif_frame(contents)
            return frame.height, frame.width

        nothing = tf.constant(0, tf.int64)
        return tf.case(
            [
                (starts(head, JPEG), jpeg),
                (starts(head, PNG), lambda: (at(20, 4, False), at(16, 4, False))),
                (starts(head, b"WEBPVP8 ", 8), lambda: (at(28, 2) % 2**14, at(26, 2) % 2**14)),
                (starts(head, b"WEBPVP8L", 8), webp_lossless),
                (starts(head, b"WEBPVP8X", 8), lambda: (at(27, 3) + 1, at(24, 3) + 1)),
                (starts(head, b"BM"), bmp),
                (starts(head, b"GIF8"), gif),
            ],
            default=lambda: (nothing, nothing),
            exclusive=False,
        )

    return picture_size


class GifFrame(NamedTuple):
    """The first frame of a GIF, scalar tensors.

    Args:
        contents: The same GIF without its other frames, the frame in its upper left corner.
        top, left: Where the frame lies in the picture, int64.
        height, width: Of the picture, int64; zeros if there is no frame.
    """

    contents: Any
    top: Any
    left: Any
    height: Any
    width: Any


def gif_frame(contents):
    """Cuts the first frame out of a GIF: TensorFlow decodes all of them, however much memory that takes."""
    return GifFrame(*_gif_frame()(contents))


@functools.cache  # as TensorFlow is not imported with the package; a graph, as one byte after another takes long
def _gif_frame():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def first_frame(contents):
        data = tf.cast(tf.pad(tf.io.decode_raw(contents, tf.uint8), [(0, _SCREEN)]), tf.int32)
        length = tf.strings.length(contents)

        def colours(at):
            """Bytes of the table of colours that the byte of flags at a place announces."""
            return tf.where(data[at] >= 128, 3 * tf.bitwise.left_shift(2, data[at] % 8), 0)

        def after_blocks(at):
            """The place after a series of blocks: each begins with its length, the last one has none."""
            last, count = tf.constant(False), tf.constant(0)
            _, at, _ = tf.while_loop(
                lambda last, at, count: ~last & (at < length) & (count < MAX_BLOCKS),
                lambda last, at, count: (data[at] == 0, at + data[at] + 1, count + 1),
                (last, at, count),
            )
            return at

        (at,) = tf.while_loop(
            lambda at: (at < length) & (data[tf.minimum(at, length)] == _EXTENSION),
            lambda at: [after_blocks(at + 2)],
            [_SCREEN + colours(10)],
            maximum_iterations=MAX_BLOCKS,
        )
        is_frame = (at + 10 < length) & (data[tf.minimum(at, length)] == _FRAME)
        at = tf.where(is_frame, at, 0)
        # Two bytes each: left, top, width, height; then flags, a table of colours, the size of codes, the codes.
        left, top, width, height = (data[at + place] + 256 * data[at + place + 1] for place in (1, 3, 5, 7))
        screen_width, screen_height = (data[place] + 256 * data[place + 1] for place in (6, 8))
        end = tf.minimum(after_blocks(at + 11 + colours(at + 9)), length)
        frame = [tf.strings.substr(contents, 0, at + 1), bytes(4), tf.strings.substr(contents, at + 5, end - at - 5)]
        frame = tf.cond(is_frame, lambda: tf.strings.join([*frame, b";"]), lambda: contents)
        height, width = tf.maximum(top + height, screen_height), tf.maximum(left + width, screen_width)
        numbers = (tf.where(is_frame, number, 0) for number in (top, left, height, width))
        return frame, *(tf.cast(number, tf.int64) for number in numbers)

    return first_frame


def has_16_bits(contents):
    """Whether an encoded picture is a PNG with 16 bits a value; in graphs."""
    head = part(contents, 0, 32)
    return starts(head, PNG) & starts(head, b"\x10", 24)


def part(contents, at, count):
    """So many bytes of a string from a place on, filled up with zeros where there are no more; in graphs."""
    import tensorflow as tf

    at = tf.minimum(tf.cast(at, tf.int64), tf.cast(tf.strings.length(contents), tf.int64))
    count = tf.cast(count, tf.int64)
    filling = tf.constant(bytes(32))  # strings that are too short end in an error
    return tf.strings.substr(
        tf.strings.join([tf.strings.substr(contents, at, count), filling]), 0, tf.cast(count, tf.int32)
    )


def starts(head, signature, at=0):
    """Whether a string has this one at a place; in graphs."""
    import tensorflow as tf

    return tf.strings.substr(head, at, len(signature)) == signature


def number(encoded, is_little=True):
    """The number that a few bytes are, an int64 scalar; the last byte counts most, or else the first; in graphs."""
    import tensorflow as tf

    digits = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int64)
    digits = tf.where(is_little, digits, tf.reverse(digits, [0]))
    return tf.reduce_sum(
        digits * tf.bitwise.left_shift(tf.constant(1, tf.int64), 8 * tf.range(tf.size(digits, tf.int64)))
    )
