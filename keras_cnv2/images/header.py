"""Reads the size of an image file from its header, in graphs. It decides whether the file may be decoded."""

import functools
from typing import Any, NamedTuple

# Default limit: larger images are not decoded. They would take more than 150 MB as RGB bytes.
MAX_PIXELS = 50_000_000

JPEG, PNG, WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"WEBP"

# Maximum number of blocks of a file to read. Real image files have fewer; a malicious one could have many, to keep the
# reader busy.
MAX_BLOCKS = 50_000

_FLOAT_BYTES = 4

# GIF format: length of the header and screen descriptor in bytes, and the first bytes of extension and image blocks.
_SCREEN = 13
_EXTENSION, _FRAME = 0x21, 0x2C


def pixel_limit(max_pixels):
    """Returns the limit as an int64 scalar tensor. Limits beyond int64 are set to its maximum."""
    import tensorflow as tf

    return tf.constant(min(max_pixels, tf.int64.max), tf.int64)


def needed_pixels(height, width, size=0):
    """Returns the peak memory for decoding and resizing an image to `size` pixels, in units of decoded pixels.

    Resizing holds all rows at the new width, or all columns at the new height, as floats.
    """
    import tensorflow as tf

    return tf.maximum(height * tf.maximum(width, _FLOAT_BYTES * size), width * size)


def picture_size(contents):
    """Reads height and width from the header of an encoded image, in graphs.

    Check them before decoding: a file of a few bytes can declare a huge size, and decoders allocate the declared size.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG, WebP, BMP or GIF.

    Returns:
        Two int64 scalars; zeros for other formats. For some damaged files TensorFlow raises an error.
    """
    return _picture_size()(contents)


@functools.cache  # lazy, because the package does not import TensorFlow; a graph, so that it is built only once
def _picture_size():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
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
            return tf.minimum(height, 2**32 - height), at(18, 4)  # a negative height means that the top row is first

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
    """The first frame of a GIF. All fields are scalar tensors.

    Args:
        contents: The same GIF with this frame only, moved to the upper left corner.
        top, left: Position of the frame in the image in pixels, int64.
        height, width: Size of the whole image in pixels, int64; zeros if there is no frame.
    """

    contents: Any
    top: Any
    left: Any
    height: Any
    width: Any


def gif_frame(contents):
    """Extracts the first frame of a GIF as a `GifFrame`.

    TensorFlow would decode all frames, which can take any amount of memory.
    """
    return GifFrame(*_gif_frame()(contents))


@functools.cache  # lazy, because the package does not import TensorFlow; a graph, because eager loops are slow
def _gif_frame():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def first_frame(contents):
        data = tf.cast(tf.pad(tf.io.decode_raw(contents, tf.uint8), [(0, _SCREEN)]), tf.int32)
        length = tf.strings.length(contents)

        def colours(at):
            """Returns the length in bytes of the colour table that the flags byte at position `at` declares."""
            return tf.where(data[at] >= 128, 3 * tf.bitwise.left_shift(2, data[at] % 8), 0)

        def after_blocks(at):
            """Returns the position after a series of blocks. Each starts with its length; the last has length 0."""
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
        # Layout of a frame: left, top, width and height of two bytes each, flags, colour table, code size, codes.
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
    """Whether an encoded image is a PNG with 16 bits per value, in graphs."""
    head = part(contents, 0, 32)
    return starts(head, PNG) & starts(head, b"\x10", 24)


def is_served(contents):
    """Whether an encoded image is a JPEG, PNG or WebP file, the formats that exports read."""
    head = part(contents, 0, 32)
    return starts(head, JPEG) | starts(head, PNG) | starts(head, WEBP, 8)


def part(contents, at, count):
    """Returns `count` bytes of a string from position `at`, padded with zeros beyond its end, in graphs.

    At most 32 zeros are added.
    """
    import tensorflow as tf

    at = tf.minimum(tf.cast(at, tf.int64), tf.cast(tf.strings.length(contents), tf.int64))
    count = tf.cast(count, tf.int64)
    filling = tf.constant(bytes(32))  # `substr` and `decode_raw` raise errors for strings that are too short
    return tf.strings.substr(
        tf.strings.join([tf.strings.substr(contents, at, count), filling]), 0, tf.cast(count, tf.int32)
    )


def starts(head, signature, at=0):
    """Whether a string has `signature` at position `at`, in graphs."""
    import tensorflow as tf

    return tf.strings.substr(head, at, len(signature)) == signature


def number(encoded, is_little=True):
    """Decodes a few bytes, little or big endian, to an unsigned number, an int64 scalar, in graphs."""
    import tensorflow as tf

    digits = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int64)
    digits = tf.where(is_little, digits, tf.reverse(digits, [0]))
    return tf.reduce_sum(
        digits * tf.bitwise.left_shift(tf.constant(1, tf.int64), 8 * tf.range(tf.size(digits, tf.int64)))
    )
