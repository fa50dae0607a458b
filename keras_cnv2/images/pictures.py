"""Pictures: encoded bytes -> RGB -> a square image. Evaluation, prediction and serving share this.

The published weights were evaluated on PIL's pixels. TensorFlow gives the same ones here: JPEG with the exact
transform, and PIL's two passes of resizing, first along rows, then along columns, each rounded to whole grey levels.
"""

import os
from pathlib import Path

import numpy as np

from keras_cnv2.arguments import positive_int

# The kinds of pictures that are read.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")

# How a picture becomes square: the centre of it, or all of it.
RESIZES = ("crop", "squash")

# What the centre crop keeps of the shortest side.
CROP = 0.875

# Bytes of a BMP before its palette.
HEADER = 54

# Why a picture is not read.
PALETTE = "BMP files with a palette are not read, save it as PNG"
NO_PICTURE = "Not a JPEG, PNG, BMP, WebP or GIF picture, or a damaged one, or too large"


def default_resize(size):
    """The way to make square images of `size` pixels where none is given: the paper's."""
    return "crop" if size < 384 else "squash"


def check_resize(resize):
    """Raises a `ValueError` for an unknown way to resize."""
    if resize is not None and resize not in RESIZES:
        raise ValueError(f"resize must be None or one of {RESIZES}. Received: resize={resize!r}")


def load_image(
    path_or_bytes: str | os.PathLike | bytes | bytearray | memoryview, size: int = 224, resize: str | None = None
) -> np.ndarray:
    """Reads a picture as an image for evaluation and prediction.

    The pixels are those of PIL, which the published weights were evaluated with, but for one grey level in a few of
    ten thousand values.

    Args:
        path_or_bytes: Path of a JPEG, PNG, BMP, WebP or GIF file, or the bytes of one. Alpha is dropped; of a
            GIF's frames the first is taken, animated WebP is not read.
        size: Int, the side of the image in pixels.
        resize: "crop": the shortest side becomes `int(size / 0.875)`, then the centre is cut out; "squash": both
            sides become `size`; `None`: "crop" below 384 pixels, "squash" from there on. Bicubic, antialiased.

    Returns:
        A float32 array `(size, size, 3)` of whole numbers in 0..255.

    Raises:
        ValueError: If this is no such picture, or an argument is out of range.
        OSError: If there is no file that can be read.
    """
    import tensorflow as tf

    size = positive_int("size", size)
    check_resize(resize)
    is_path = isinstance(path_or_bytes, (str, os.PathLike))
    if not is_path and not isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        raise ValueError(f"load_image takes a path or bytes. Received: {path_or_bytes!r}"[:500])
    contents = Path(path_or_bytes).read_bytes() if is_path else bytes(path_or_bytes)
    received = os.fspath(path_or_bytes) if is_path else f"{len(contents)} bytes"
    try:
        with tf.device("cpu"):
            return to_square(decode(contents), size, resize).numpy()
    except tf.errors.OpError as error:
        reason = PALETTE if PALETTE in error.message else NO_PICTURE
        raise ValueError(f"{reason}. Received: {received}") from error


def decode(contents):
    """The pixels of a picture, in graphs too.

    Args:
        contents: Scalar string tensor, an encoded JPEG, PNG, BMP, WebP or GIF.

    Returns:
        A uint8 tensor `(height, width, 3)`.
    """
    import tensorflow as tf

    # Filled up, as TensorFlow's error about too short a string quotes the bytes, and fails where they are no text.
    head = tf.strings.join([tf.strings.substr(contents, 0, 32), bytes(32)])

    def starts(signature, at=0):
        return tf.strings.substr(head, at, len(signature)) == signature

    pixels = tf.case(
        [
            # TensorFlow's default transform is faster, and off by a grey level.
            (starts(b"\xff\xd8\xff"), lambda: tf.io.decode_jpeg(contents, 3, dct_method="INTEGER_ACCURATE")),
            (starts(b"WEBP", at=8), lambda: _decode_webp(contents, head)),
            (starts(b"BM"), lambda: _decode_bmp(contents)),
        ],
        default=lambda: tf.io.decode_image(contents, 3, expand_animations=False),
        exclusive=False,
    )
    return tf.ensure_shape(pixels, (None, None, 3))


def _decode_bmp(contents):
    """`decode` for BMP, but for those of up to 256 colours other than greys: TensorFlow takes numbers for levels."""
    import tensorflow as tf

    greys = bytes(part for level in range(256) for part in (level, level, level, 0))
    end = HEADER + len(greys)
    head = tf.strings.join([tf.strings.substr(contents, 0, end), bytes(end)])
    bits, palette = tf.strings.substr(head, 28, 2), tf.strings.substr(head, HEADER, len(greys))
    has_palette = tf.reduce_any(bits == [b"\x01\x00", b"\x04\x00", b"\x08\x00"]) & (palette != greys)
    with tf.control_dependencies([tf.debugging.assert_equal(has_palette, False, PALETTE)]):
        return tf.io.decode_image(tf.identity(contents), 3, expand_animations=False)


def _decode_webp(contents, head):
    """`decode` for WebP, where TensorFlow wants to be told whether there is an alpha channel.

    Left to find out, it writes beyond its memory for animations without alpha (seen in 2.21). Told that there are three
    channels it refuses all animations, and with them headers that claim more pixels than fit into memory.
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


def to_square(pixels, size, resize=None):
    """Makes a square image of pixels, in graphs too.

    Args:
        pixels: Tensor `(height, width, 3)`, values in 0..255.
        size, resize: As in `load_image`.

    Returns:
        A float32 tensor `(size, size, 3)`.
    """
    import tensorflow as tf

    height, width = tf.unstack(tf.shape(pixels, out_type=tf.int64)[:2])
    scaled_height = scaled_width = tf.constant(size, tf.int64)
    if (resize or default_resize(size)) == "crop":
        shortest, target = tf.minimum(height, width), int(size / CROP)
        scaled_height, scaled_width = target * height // shortest, target * width // shortest
    pixels = _resize(pixels, (height, scaled_width), (height, size))
    return tf.ensure_shape(_resize(pixels, (scaled_height, size), (size, size)), (size, size, 3))


def _resize(pixels, scaled, window):
    """Resizes to the size `scaled` and cuts the centre of the size `window` out of it, without computing the rest.

    Bicubic, antialiased, rounded to whole grey levels.
    """
    import tensorflow as tf

    scaled, window = (tf.cast(tf.stack(shape), tf.int64) for shape in (scaled, window))
    resized = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=tf.cast(window, tf.int32),
        scale=tf.cast(scaled, tf.float32) / tf.cast(tf.shape(pixels)[:2], tf.float32),
        translation=tf.cast(-((scaled - window) // 2), tf.float32),
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.clip_by_value(tf.floor(resized[0] + 0.5), 0, 255)
