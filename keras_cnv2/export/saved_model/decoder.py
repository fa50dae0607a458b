"""Encoded pictures to images within a graph, where one that is damaged does not fail the others."""

import tensorflow as tf

from keras_cnv2.images.header import JPEG, PNG, WEBP, needed_pixels, part, starts
from keras_cnv2.images.pictures import to_square
from keras_cnv2.models.pictures import LUMA

ENCODED = tf.TensorSpec((None,), tf.string, "encoded")

# Of a batch, at once; TensorFlow takes no more threads for it than it has.
PARALLEL = 16


def decoder(size, resize, channels, reading):
    """Makes a function from encoded pictures to images.

    Args:
        size: Int, the side of the images.
        resize: "crop", "squash" or `None`, see `keras_cnv2.load_image`.
        channels: 1 or 3.
        reading: `keras_cnv2.images.pictures.Reading`.

    Returns:
        Function of a string tensor `(N,)` that returns float32 images `(N, size, size, channels)` in 0..255, and
        booleans `(N,)`: false, with a black image, for what is no JPEG, PNG or WebP picture, damaged or too large.

    Raises:
        ValueError: If not even a picture of the size of the images would pass.
    """

    def to_image(pixels):
        image = to_square(pixels, size, resize)
        return (image if channels == 3 else tf.linalg.matmul(image, tf.constant(LUMA)[:, None]),)

    return each_decoded(to_image, (tf.zeros((size, size, channels)),), size, reading)


def each_decoded(to_image, black, size, reading):
    """Makes a function from encoded pictures to what each of them becomes.

    Args:
        to_image: Function from pixels, uint8 `(height, width, 3)`, to a tuple of tensors of static shapes.
        black: Such a tuple, for what cannot be decoded.
        size: Int, the side of the images that are made.
        reading: `keras_cnv2.images.pictures.Reading`.

    Returns:
        Function of a string tensor `(N,)` that returns these tensors, batched, and booleans `(N,)`: false for what is
        no JPEG, PNG or WebP picture, damaged or too large.

    Raises:
        ValueError: If not even a picture of the size of the images would pass.
    """
    least = int(needed_pixels(size, size, size))
    if reading.max_pixels < least:
        raise ValueError(
            f"max_pixels must be at least {least} for images of {size} pixels. "
            f"Received: max_pixels={reading.max_pixels}"
        )

    def decoded(contents):
        with tf.control_dependencies([tf.debugging.Assert(is_served(contents), ["No JPEG, PNG or WebP picture"])]):
            return (*to_image(reading.pixels(tf.identity(contents), size)), True)

    def decoded_or_black(contents):
        # TensorFlow's graphs can catch no error. Its datasets can drop what fails.
        image = tf.data.Dataset.from_tensors(contents).map(decoded)
        nothing = tf.data.Dataset.from_tensors((*black, False))
        return image.ignore_errors().concatenate(nothing).take(1).get_single_element()

    def images(encoded):
        count = tf.size(encoded, tf.int64)
        with tf.control_dependencies([tf.debugging.assert_positive(count, "Send at least one picture")]):
            batch = tf.data.Dataset.from_tensor_slices(tf.identity(encoded))
        return batch.map(decoded_or_black, PARALLEL).batch(count).get_single_element()

    return images


def is_served(contents):
    """Whether this is a JPEG, PNG or WebP picture, by its first bytes."""
    head = part(contents, 0, 32)
    return starts(head, JPEG) | starts(head, PNG) | starts(head, WEBP, 8)
