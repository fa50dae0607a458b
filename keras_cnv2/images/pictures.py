"""Reads image files as square RGB images. Evaluation, prediction and serving share this code.

Names in this package distinguish a picture, the content of an image file, from an image, the array that a model takes.

The published weights were evaluated with PIL. To get the same pixels, TensorFlow decodes JPEG with the exact transform,
and images are resized as in PIL in two passes, first along rows, then along columns, each rounded to whole numbers.
"""

import os
import warnings
from numbers import Real
from typing import NamedTuple

import numpy as np

from keras_cnv2.arguments import positive_int
from keras_cnv2.files import read_file
from keras_cnv2.images.decode import PALETTE, decode
from keras_cnv2.images.grey_levels import small_range
from keras_cnv2.images.header import MAX_PIXELS, has_16_bits, needed_pixels, picture_size, pixel_limit
from keras_cnv2.images.orientation import UPRIGHT, orientation_of, turned, turned_sides

# Suffixes of the image files that can be read.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif")

# How an image is made square: by cropping its centre, or by squashing all of it.
RESIZES = ("crop", "squash")

# Fraction of the shorter side that the centre crop keeps.
CROP = 0.875

# Error message for files that are not read.
NO_PICTURE = "Not a JPEG, PNG, BMP, WebP or GIF image, or a damaged one, or too large"


def default_resize(size):
    """Returns the paper's `resize` for square images of `size` pixels: "crop" below 384, "squash" from 384 on."""
    return "crop" if size < 384 else "squash"


def crop_fraction(resize):
    """Returns the fraction of the shorter side that the centre crop keeps, or `None` for "squash"."""
    return {"crop": CROP, "squash": None}.get(resize, resize)


def is_resize(value):
    """Whether `value` is "crop", "squash", or the fraction of the shorter side that a centre crop keeps, in (0, 1]."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return 0 < value <= 1
    return isinstance(value, str) and value in RESIZES


def check_resize(resize):
    """Raises a `ValueError` unless `resize` is `None` or `is_resize`."""
    if resize is not None and not is_resize(resize):
        raise ValueError(
            f"resize must be None, one of {RESIZES}, or the fraction that a crop keeps, in (0, 1]. "
            f"Received: resize={resize!r}"
        )


def load_image(
    path_or_bytes: str | os.PathLike | bytes | bytearray | memoryview,
    size: int = 224,
    resize: str | float | None = None,
    exif_orientation: bool = True,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads an image file for evaluation and prediction.

    The pixels are those of PIL, with which the published weights were evaluated, except that a few of ten thousand
    values differ by 1.

    ```python
    image = keras_cnv2.load_image("photo.jpg", size=224)  # (224, 224, 3)
    images = np.stack([keras_cnv2.load_image(path) for path in paths])  # (N, 224, 224, 3)
    probabilities = model.predict(images)
    ```

    Args:
        path_or_bytes: Path of a JPEG, PNG, BMP, WebP or GIF file, or the bytes of one. An alpha channel is dropped.
            Only the first frame of a GIF is read; animated WebP files raise an error.
        size: Int, the side of the returned image in pixels.
        resize: "crop" resizes the shorter side to `int(size / 0.875)` and cuts out the centre; a float in (0, 1] does
            this with another fraction than 0.875; "squash" resizes both sides to `size`; `None` means "crop" below 384
            pixels and "squash" from 384 on. Bicubic with antialiasing.
        exif_orientation: Bool, whether JPEG, PNG and WebP files are rotated and mirrored according to their EXIF data,
            as image viewers and PIL's `ImageOps.exif_transpose` do. Orientations in XMP data are ignored. ImageNet is
            evaluated without it.
        max_pixels: Int, height times width of the largest file that is decoded. Images that are very long and narrow
            need more memory to resize, and count as if they were about as wide as the returned image.

    Returns:
        A float32 array `(size, size, 3)` of whole numbers in 0..255.

    Raises:
        ValueError: If the file is not one of these formats, is damaged or too large, or an argument is out of range.
        OSError: If the file cannot be read.
    """
    size, max_pixels = positive_int("size", size), positive_int("max_pixels", max_pixels)
    check_resize(resize)
    is_path = isinstance(path_or_bytes, (str, os.PathLike))
    if not is_path and not isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        raise ValueError(f"load_image takes a path or bytes. Received: {path_or_bytes!r}"[:500])
    reading = Reading(exif_orientation, max_pixels)
    return _loaded(path_or_bytes, size, reading, lambda pixels: to_square(pixels, size, resize))


def load_pixels(path, size, reading=None):
    """Reads an image file at its own size, upright.

    Args:
        path: Path of the file.
        size: Int, the side in pixels to which the caller will resize it. It only affects the limit `max_pixels`.
        reading: Optional `Reading`.

    Returns:
        A uint8 array `(height, width, 3)`.

    Raises:
        ValueError, OSError: As in `load_image`.
    """
    return _loaded(path, size, reading or READING, lambda pixels: pixels)


def _loaded(path_or_bytes, size, reading, finish):
    """Reads an image file, applies `finish` to its pixels and returns the result as an array."""
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


class Reading(NamedTuple):
    """Options for reading encoded images. The methods also work in graphs.

    Args:
        exif_orientation, max_pixels: As in `load_image`.
    """

    exif_orientation: bool = True
    max_pixels: int = MAX_PIXELS

    def orientation(self, contents):
        """Returns the orientation to apply, an int32 scalar from 1 to 8, see `keras_cnv2.images.orientation`."""
        import tensorflow as tf

        return orientation_of(contents) if self.exif_orientation else tf.constant(UPRIGHT)

    def needed(self, height, width, orientation, size):
        """Returns the peak memory for resizing an image of the stored height and width, see `needed_pixels`."""
        import tensorflow as tf

        height, width = tf.unstack(turned_sides(tf.stack([height, width]), orientation))
        return needed_pixels(height, width, size)

    def checked(self, contents, orientation, size=0):
        """Returns `contents`, with an error if it is not an image, or is too large to be resized to `size`."""
        import tensorflow as tf

        height, width = picture_size(contents)
        is_right = (tf.minimum(height, width) > 0) & (
            self.needed(height, width, orientation, size) <= pixel_limit(self.max_pixels)
        )
        check = tf.debugging.Assert(is_right, [f"Not an image, or one of more than {self.max_pixels} pixels"])
        with tf.control_dependencies([check]):
            return tf.identity(contents)

    def pixels(self, contents, size=0, orientation=None):
        """Decodes an image at its own size, upright.

        Args:
            contents: Scalar string tensor, the encoded image.
            size: Int, the side in pixels to which the caller will resize it. It only affects the limit `max_pixels`.
            orientation: Int32 scalar, by default the orientation in the file.

        Returns:
            A uint8 tensor `(height, width, 3)`. An error is raised if this is not an image, or too large.
        """
        orientation = self.orientation(contents) if orientation is None else orientation
        return turned(decode(self.checked(contents, orientation, size)), orientation)


READING = Reading()


def to_square(pixels, size, resize=None):
    """Resizes pixels to a square image. It also works in graphs.

    Args:
        pixels: Tensor `(height, width, 3)`, values in 0..255.
        size, resize: As in `load_image`.

    Returns:
        A float32 tensor `(size, size, 3)`.
    """
    import tensorflow as tf

    height, width = tf.unstack(tf.shape(pixels, out_type=tf.int64)[:2])
    scaled_height = scaled_width = tf.constant(size, tf.int64)
    if fraction := crop_fraction(resize or default_resize(size)):
        shortest, target = tf.minimum(height, width), int(size / fraction)
        scaled_height, scaled_width = target * height // shortest, target * width // shortest
    pixels = _resize(pixels, (height, scaled_width), (height, size))
    return tf.ensure_shape(_resize(pixels, (scaled_height, size), (size, size)), (size, size, 3))


def _resize(pixels, scaled, window):
    """Resizes to the size `scaled` and crops the centre to the size `window`. Only the crop is computed.

    Bicubic with antialiasing, rounded to whole numbers.
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
