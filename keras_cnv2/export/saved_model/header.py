"""The size of a picture, from its first bytes: what decides whether it may be decoded at all."""


def picture_size(contents):
    """Height and width that the header of a picture states, in graphs.

    A few bytes can claim a picture that fills the memory, and decoders allocate what is claimed.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG or WebP.

    Returns:
        Two int64 scalars; zeros if it is none of these.
    """
    import tensorflow as tf

    # Filled up, so that short strings can be looked at as well.
    head = tf.strings.join([tf.strings.substr(contents, 0, 32), bytes(32)])

    def starts(signature, at=0):
        return tf.strings.substr(head, at, len(signature)) == signature

    def number(at, count, little_endian=False):
        digits = tf.cast(tf.io.decode_raw(tf.strings.substr(head, at, count), tf.uint8), tf.int64)
        places = range(count) if little_endian else reversed(range(count))
        return tf.reduce_sum(digits * [256**place for place in places])

    def jpeg():
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(contents, tf.int32))
        return tf.cast(height, tf.int64), tf.cast(width, tf.int64)

    def webp_lossy():
        return number(28, 2, True) % 2**14, number(26, 2, True) % 2**14

    def webp_lossless():
        bits = number(21, 4, True)
        return bits // 2**14 % 2**14 + 1, bits % 2**14 + 1

    def webp_extended():
        return number(27, 3, True) + 1, number(24, 3, True) + 1

    nothing = tf.constant(0, tf.int64)
    return tf.case(
        [
            (starts(b"\xff\xd8\xff"), jpeg),
            (starts(b"\x89PNG\r\n\x1a\n"), lambda: (number(20, 4), number(16, 4))),
            (starts(b"WEBPVP8 ", at=8), webp_lossy),
            (starts(b"WEBPVP8L", at=8), webp_lossless),
            (starts(b"WEBPVP8X", at=8), webp_extended),
        ],
        default=lambda: (nothing, nothing),
        exclusive=False,
    )
