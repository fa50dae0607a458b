"""Encoded pictures to images within a graph, where one that is damaged does not fail the others."""

import tensorflow as tf

from keras_cnv2 import predict
from keras_cnv2.export.header import picture_size
from keras_cnv2.preprocessing import decode, to_square

ENCODED = tf.TensorSpec((None,), tf.string, "encoded")

# Of a batch, at once; TensorFlow takes no more threads for it than it has.
PARALLEL = 16

FLOAT_BYTES = 4


def decoder(size, resize, channels, max_pixels):
    """Makes a function from encoded pictures to images.

    Args:
        size: Int, the side of the images.
        resize: "crop", "squash" or `None`, see `keras_cnv2.load_image`.
        channels: 1 or 3.
        max_pixels: Int, height times width of the largest picture.

    Returns:
        Function of a string tensor `(N,)` that returns float32 images `(N, size, size, channels)` in 0..255, and
        booleans `(N,)`: false, with a black image, for what is no JPEG, PNG or WebP picture, damaged or too large.

    Raises:
        ValueError: If not even a picture of the size of the images would pass.
    """
    least = FLOAT_BYTES * size**2
    if max_pixels < least:
        raise ValueError(
            f"max_pixels must be at least {least} for images of {size} pixels. Received: max_pixels={max_pixels}"
        )

    def to_image(contents):
        height, width = picture_size(contents)
        # Resizing holds all rows at the new width, in float32, before their number changes.
        needed = height * tf.maximum(width, FLOAT_BYTES * size)
        checks = [
            tf.debugging.assert_positive(tf.minimum(height, width)),
            tf.debugging.assert_less_equal(needed, tf.constant(max_pixels, tf.int64)),
        ]
        with tf.control_dependencies(checks):
            image = to_square(decode(tf.identity(contents)), size, resize)
        return image if channels == 3 else tf.linalg.matmul(image, tf.constant(predict.LUMA)[:, None])

    def image_or_black(contents):
        # TensorFlow's graphs can catch no error. Its datasets can drop what fails.
        image = tf.data.Dataset.from_tensors(contents).map(lambda contents: (to_image(contents), True))
        black = tf.data.Dataset.from_tensors((tf.zeros((size, size, channels)), False))
        return image.ignore_errors().concatenate(black).take(1).get_single_element()

    def images(encoded):
        count = tf.size(encoded, tf.int64)
        with tf.control_dependencies([tf.debugging.assert_positive(count, "Send at least one picture")]):
            batch = tf.data.Dataset.from_tensor_slices(tf.identity(encoded))
        return batch.map(image_or_black, PARALLEL).batch(count).get_single_element()

    return images
