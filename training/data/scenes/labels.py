"""Class maps in PNG files: the number of a class for each pixel, in graphs."""

import zlib

import numpy as np
import tensorflow as tf

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Of a PNG: the signature, then the chunk that begins every file. A byte each for bits a value and kind of colour.
_HEADER = 33
_BITS, _COLOUR = 24, 25
GREY, INDEXED = 0, 3


def decode_labels(contents):
    """The numbers in a PNG, of grey levels or indexed colours with 1, 2, 4, 8 or 16 bits.

    TensorFlow alone would spread the few levels of 1, 2 and 4 bits over 0..255, cut 16 bits to their upper half and
    turn indices into colours.

    Args:
        contents: Scalar string tensor.

    Returns:
        An int32 tensor `(height, width)`. Other kinds of colour give numbers without meaning, see `holds_numbers`.
        An error is raised if this is no PNG.
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
    """Whether the pixels of a PNG are numbers, one each: grey levels or indices of colours."""
    colour = _header(contents)[1]
    return (colour == GREY) | (colour == INDEXED)


def _header(contents):
    """Bits a value and kind of colour of a PNG, int32."""
    fields = tf.io.decode_raw(tf.strings.substr(contents, _BITS, 2), tf.uint8)
    return tf.unstack(tf.ensure_shape(tf.cast(fields, tf.int32), (2,)))


def _greyed():
    """What to change in the header of a PNG to turn indexed colours into greys: one byte, and the checksum for it.

    A checksum is linear: a change of some bits changes the same bits of it whatever the others are.
    """
    change = bytearray(_HEADER)
    change[_COLOUR] = INDEXED ^ GREY
    summed = change[12:-4]  # the chunk's name and its fields
    change[-4:] = (zlib.crc32(summed) ^ zlib.crc32(bytes(len(summed)))).to_bytes(4, "big")
    return np.frombuffer(bytes(change), "uint8")


_BYTES = [bytes([value]) for value in range(256)]


def _indices_as_greys(contents):
    """The same PNG with the indices of its colours as grey levels: another header, and nothing of a palette."""
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
