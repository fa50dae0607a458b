"""Decodes image files of all formats that are read, in graphs as well."""

from keras_cnv2.images.header import gif_frame

# Length of a BMP's header in bytes; the palette follows.
HEADER = 54

# Error message for BMP files with a palette.
PALETTE = "BMP files with a palette are not supported: save the image as PNG"


def decode(contents):
    """Decodes an image as it is stored. It also works in graphs.

    The size is not limited and the orientation is not applied; `Reading` does both.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG, BMP, WebP or GIF.

    Returns:
        A uint8 tensor `(height, width, 3)`.
    """
    import tensorflow as tf

    # Padded, because TensorFlow's error for short strings quotes the bytes, which fails if they are not text.
    head = tf.strings.join([tf.strings.substr(contents, 0, 32), bytes(32)])

    def starts(signature, at=0):
        return tf.strings.substr(head, at, len(signature)) == signature

    pixels = tf.case(
        [
            # TensorFlow's default transform is faster, but its values differ by up to 1.
            (starts(b"\xff\xd8\xff"), lambda: tf.io.decode_jpeg(contents, 3, dct_method="INTEGER_ACCURATE")),
            (starts(b"WEBP", at=8), lambda: _decode_webp(contents, head)),
            (starts(b"BM"), lambda: _decode_bmp(contents)),
            (starts(b"GIF8"), lambda: _decode_gif(contents)),
        ],
        default=lambda: tf.io.decode_image(contents, 3, expand_animations=False),
        exclusive=False,
    )
    return tf.ensure_shape(pixels, (None, None, 3))


def _decode_bmp(contents):
    """Implements `decode` for BMP. Palettes other than greys raise an error.

    TensorFlow ignores palettes: it would return the indices as grey levels.
    """
    import tensorflow as tf

    greys = bytes(part for level in range(256) for part in (level, level, level, 0))
    end = HEADER + len(greys)
    head = tf.strings.join([tf.strings.substr(contents, 0, end), bytes(end)])
    bits, palette = tf.strings.substr(head, 28, 2), tf.strings.substr(head, HEADER, len(greys))
    has_palette = tf.reduce_any(bits == [b"\x01\x00", b"\x04\x00", b"\x08\x00"]) & (palette != greys)
    with tf.control_dependencies([tf.debugging.assert_equal(has_palette, False, PALETTE)]):
        return tf.io.decode_image(tf.identity(contents), 3, expand_animations=False)


def _decode_gif(contents):
    """Implements `decode` for GIF: returns the first frame, at its position in the image, on black."""
    import tensorflow as tf

    frame = gif_frame(contents)
    pixels = tf.io.decode_image(frame.contents, 3, expand_animations=False)
    sides = tf.shape(pixels, tf.int64)
    below, beside = frame.height - frame.top - sides[0], frame.width - frame.left - sides[1]
    return tf.pad(pixels, [(frame.top, below), (frame.left, beside), (0, 0)])


def _decode_webp(contents, head):
    """Implements `decode` for WebP. Reads from the header whether there is an alpha channel, and tells TensorFlow.

    With automatic detection, TensorFlow writes out of bounds for animations without alpha (seen in 2.21). With three
    channels it refuses all animations, including those whose headers declare more pixels than fit into memory.
    """
    import tensorflow as tf

    chunk = tf.strings.substr(head, 12, 4)
    flags = tf.io.decode_raw(tf.strings.substr(head, 20, 5), tf.uint8)
    flag = tf.where(chunk == b"VP8X", flags[0], flags[4])
    has_alpha = (chunk != b"VP8 ") & (tf.bitwise.bitwise_and(flag, 0x10) > 0)
    animated = (chunk == b"VP8X") & (tf.bitwise.bitwise_and(flag, 0x02) > 0)
    four = has_alpha & ~animated
    frames = tf.cond(four, lambda: tf.io.decode_webp(contents, 4), lambda: tf.io.decode_webp(contents, 3))
    return frames[0, :, :, :3]
