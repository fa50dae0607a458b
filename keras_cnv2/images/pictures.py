"""Pictures: encoded bytes -> RGB -> a square image. Evaluation, prediction and serving share this.

The published weights were evaluated on PIL's pixels. TensorFlow gives the same ones here: JPEG with the exact
transform, and PIL's two passes of resizing, first along rows, then along columns, each rounded to whole grey levels.
"""

import os
import warnings
from typing import NamedTuple

import numpy as np

from keras_cnv2.arguments import positive_int
from keras_cnv2.files import read_file
from keras_cnv2.images.header import MAX_PIXELS, gif_frame, has_16_bits, needed_pixels, picture_size, pixel_limit
from keras_cnv2.images.orientation import UPRIGHT, orientation_of, turned, turned_sides

# The kinds of pictures that are read.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif")

# How a picture becomes square: the centre of it, or all of it.
RESIZES = ("crop", "squash")

# What the centre crop keeps of the shortest side.
CROP = 0.875

# Of the values of 16 bits: with less between the darkest and the brightest pixel, a quarter of all grey levels is used.
SMALL_RANGE = 2**14

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
    path_or_bytes: str | os.PathLike | bytes | bytearray | memoryview,
    size: int = 224,
    resize: str | None = None,
    exif_orientation: bool = True,
    max_pixels: int = MAX_PIXELS,
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
        exif_orientation: Bool, whether a picture is turned and mirrored as its EXIF data say, of JPEG, PNG and WebP
            files, like viewers show it and as PIL's `ImageOps.exif_transpose` does it. Orientations that stand in XMP
            alone do not count. ImageNet is evaluated without.
        max_pixels: Int, height times width of the largest picture that is decoded; very long pictures count as if
            they were about as wide as the image.

    Returns:
        A float32 array `(size, size, 3)` of whole numbers in 0..255.

    Raises:
        ValueError: If this is no such picture, or it is too large, or an argument is out of range.
        OSError: If there is no file that can be read.
    """
    size, max_pixels = positive_int("size", size), positive_int("max_pixels", max_pixels)
    check_resize(resize)
    is_path = isinstance(path_or_bytes, (str, os.PathLike))
    if not is_path and not isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        raise ValueError(f"load_image takes a path or bytes. Received: {path_or_bytes!r}"[:500])
    reading = Reading(exif_orientation, max_pixels)
    return _loaded(path_or_bytes, size, reading, lambda pixels: to_square(pixels, size, resize))


def load_pixels(path, size, reading=None):
    """A picture as it is seen, to be made an image of this size.

    Args:
        path: Path of the picture.
        size: Int, the side of the image.
        reading: Optional `Reading`.

    Returns:
        A uint8 array `(height, width, 3)`.

    Raises:
        ValueError or OSError: As `load_image`.
    """
    return _loaded(path, size, reading or READING, lambda pixels: pixels)


def _loaded(path_or_bytes, size, reading, finish):
    """What `finish` makes of the pixels of a picture, as an array."""
    import tensorflow as tf

    is_path = isinstance(path_or_bytes, (str, os.PathLike))
    contents = read_file(path_or_bytes) if is_path else bytes(path_or_bytes)
    received = os.fspath(path_or_bytes) if is_path else f"{len(contents)} bytes"
    try:
        with tf.device("cpu"):
            orientation = reading.orientation(contents)
            height, width = picture_size(contents)
            if reading.needed(height, width, orientation, size) > pixel_limit(reading.max_pixels):
                raise ValueError(
                    f"Pictures have at most {reading.max_pixels} pixels (max_pixels). "
                    f"Received: {received} of {width} x {height} pixels"
                )
            if has_16_bits(contents) and (fault := small_range(contents)):
                warnings.warn(f"{received} {fault}", stacklevel=3)
            return finish(turned(decode(contents), orientation)).numpy()
    except tf.errors.OpError as error:
        reason = PALETTE if PALETTE in error.message else NO_PICTURE
        raise ValueError(f"{reason}. Received: {received}") from error


def small_range(contents):
    """What to say of a PNG of 16 bits, of which the upper 8 are kept, if few grey levels remain; else `None`.

    Args:
        contents: The encoded picture, whose size has been checked.
    """
    import tensorflow as tf

    try:
        values = tf.io.decode_png(contents, 3, tf.uint16).numpy()
    except tf.errors.OpError:  # damaged, which is said elsewhere
        return None
    low, high = int(values.min()), int(values.max())
    if high - low >= SMALL_RANGE:
        return None
    return (
        f"is a PNG of 16 bits that uses {low} to {high} of 0 to 65535: {high // 256 - low // 256 + 1} of 256 grey "
        "levels remain of it. Stretch its values, or train on arrays, in an .npz file"
    )


class Reading(NamedTuple):
    """How encoded pictures become pixels, in graphs too.

    Args:
        exif_orientation, max_pixels: As in `load_image`.
    """

    exif_orientation: bool = True
    max_pixels: int = MAX_PIXELS

    def orientation(self, contents):
        """From 1 to 8, an int32 scalar, see `keras_cnv2.images.orientation`."""
        import tensorflow as tf

        return orientation_of(contents) if self.exif_orientation else tf.constant(UPRIGHT)

    def needed(self, height, width, orientation, size):
        """What a picture takes until it is an image of this size, in pixels; height and width as stored."""
        import tensorflow as tf

        height, width = tf.unstack(turned_sides(tf.stack([height, width]), orientation))
        return needed_pixels(height, width, size)

    def checked(self, contents, orientation, size=0):
        """The encoded picture; an error is raised if it is none, or too large to become an image of this size."""
        import tensorflow as tf

        height, width = picture_size(contents)
        is_right = (tf.minimum(height, width) > 0) & (
            self.needed(height, width, orientation, size) <= pixel_limit(self.max_pixels)
        )
        check = tf.debugging.Assert(is_right, [f"No picture, or one of more than {self.max_pixels} pixels"])
        with tf.control_dependencies([check]):
            return tf.identity(contents)

    def pixels(self, contents, size=0, orientation=None):
        """A picture as it is seen, for an image of this size.

        Args:
            contents: Scalar string tensor, the encoded picture.
            size: Int, the side of the image.
            orientation: Int32 scalar, by default that of the picture.

        Returns:
            A uint8 tensor `(height, width, 3)`. An error is raised if this is no picture or too large a one.
        """
        orientation = self.orientation(contents) if orientation is None else orientation
        return turned(decode(self.checked(contents, orientation, size)), orientation)


READING = Reading()


def decode(contents):
    """The pixels of a picture as they are stored, in graphs too. Whatever size it claims, see `Reading`.

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
            (starts(b"GIF8"), lambda: _decode_gif(contents)),
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


def _decode_gif(contents):
    """`decode` for GIF: the first frame where it lies in the picture, on black."""
    import tensorflow as tf

    frame = gif_frame(contents)
    pixels = tf.io.decode_image(frame.contents, 3, expand_animations=False)
    sides = tf.shape(pixels, tf.int64)
    below, beside = frame.height - frame.top - sides[0], frame.width - frame.left - sides[1]
    return tf.pad(pixels, [(frame.top, below), (frame.left, beside), (0, 0)])


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
