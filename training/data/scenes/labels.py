"""Decodes class maps: PNG files with a class number for each pixel. Runs in graphs."""

import zlib

import numpy as np
import tensorflow as tf

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Length of a PNG's header, i.e. signature and IHDR chunk; positions of bit depth and colour type, one byte each.
_HEADER = 33
_BITS, _COLOUR = 24, 25
GREY, INDEXED = 0, 3


def decode_labels(contents):
    """Decodes the numbers in a PNG with grey levels or palette indices of 1, 2, 4, 8 or 16 bits.

    TensorFlow's own decoder would stretch levels of 1, 2 and 4 bits to 0..255, keep only the upper 8 of 16 bits and
    turn indices into colours.

    Args:
        contents: Scalar string tensor, an encoded PNG. Other contents raise an error.

    Returns:
        An int32 tensor `(height, width)`. For other colour types, the numbers have no meaning; see `holds_numbers`.
    """
    is_png = tf.debugging.assert_equal(tf.strings.substr(contents, 0, len(SIGNATURE)), SIGNATURE)
    with tf.control_dependencies([is_png] if is_png is not None else []):
        bits, colour = _header(contents)
    contents = tf.cond(colour == INDEXED, lambda: _indices_as_greys(contents), lambda: contents)

    def wide():
        return tf.cast(tf.io.decode_png(contents, 1, tf.uint16), tf.int32)

    def narrow():
        levels = tf.cast(tf.io.decode_png(contents, 1), tf.int32)
        return levels // (255 // (tf.bitwise.left_shift(1, bits) - 1))

    return tf.ensure_shape(tf.cond(bits == 16, wide, narrow)[..., 0], (None, None))


def holds_numbers(contents):
    """Returns whether each pixel of a PNG is one number: a grey level or a palette index."""
    colour = _header(contents)[1]
    return (colour == GREY) | (colour == INDEXED)


def _header(contents):
    """Returns the bit depth and the colour type of a PNG, int32."""
    fields = tf.io.decode_raw(tf.strings.substr(contents, _BITS, 2), tf.uint8)
    return tf.unstack(tf.ensure_shape(tf.cast(fields, tf.int32), (2,)))


def _greyed():
    """Returns the bits to flip in a PNG's header to change its colour type from indexed to grey, and its checksum.

    CRC-32 is linear: flipping certain bits of the data always flips the same bits of the checksum.
    """
    change = bytearray(_HEADER)
    change[_COLOUR] = INDEXED ^ GREY
    summed = change[12:-4]  # the chunk's type and data, which the checksum covers
    change[-4:] = (zlib.crc32(summed) ^ zlib.crc32(bytes(len(summed)))).to_bytes(4, "big")
    return np.frombuffer(bytes(change), "uint8")


_BYTES = [bytes([value]) for value in range(256)]


def _indices_as_greys(contents):
    """Turns an indexed PNG into a grey one with the same numbers: changes its header and drops its palette."""
    header = tf.io.decode_raw(tf.strings.substr(contents, 0, _HEADER), tf.uint8)
    header = tf.bitwise.bitwise_xor(header, _greyed())
    header = tf.strings.reduce_join(tf.gather(_BYTES, tf.cast(header, tf.int32)))

    def is_before_pixels(at):
        return (at < tf.strings.length(contents)) & (tf.strings.substr(contents, at + 4, 4) != b"IDAT")

    def next_chunk(at):
        (length,) = tf.unstack(tf.io.decode_raw(tf.strings.substr(contents, at, 4), tf.int32, little_endian=False), 1)
        return at + 12 + tf.maximum(length, 0)

    (pixels,) = tf.while_loop(is_before_pixels, lambda at: [next_chunk(at)], [_HEADER])
    return header + tf.strings.substr(contents, pixels, -1)
