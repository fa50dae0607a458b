"""Decodes batches of image files in a graph; a damaged one does not make the others fail."""

import tensorflow as tf

from keras_cnv2.images.header import is_served, needed_pixels

ENCODED = tf.TensorSpec((None,), tf.string, "encoded")

# Number of images of a batch that are decoded in parallel, limited by TensorFlow's thread pool.
PARALLEL = 16


def decoder(to_image, black, size, reading):
    """Makes a function that decodes image files and applies `to_image` to each.

    Args:
        to_image: Function from pixels, uint8 `(height, width, 3)`, to a tuple of tensors of static shapes.
        black: Tuple of tensors of the same shapes, for files that cannot be decoded.
        size: Int, the side of the images in pixels.
        reading: `keras_cnv2.images.pictures.Reading`, how image files are read.

    Returns:
        Function of a string tensor `(N,)`, encoded images, that returns the tensors of `to_image`, batched, and
        booleans `(N,)`: false if the bytes are not a JPEG, PNG or WebP image, damaged or too large.

    Raises:
        ValueError: If `reading.max_pixels` does not even allow images of `size` x `size` pixels.
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
        # TensorFlow graphs cannot catch errors, but datasets can drop elements that fail.
        image = tf.data.Dataset.from_tensors(contents).map(decoded)
        nothing = tf.data.Dataset.from_tensors((*black, False))
        return image.ignore_errors().concatenate(nothing).take(1).get_single_element()

    @tf.autograph.experimental.do_not_convert  # which takes seconds, and nothing here needs it
    def images(encoded):
        count = tf.size(encoded, tf.int64)
        with tf.control_dependencies([tf.debugging.assert_positive(count, "Send at least one picture")]):
            batch = tf.data.Dataset.from_tensor_slices(tf.identity(encoded))
        return batch.map(decoded_or_black, PARALLEL).batch(count).get_single_element()

    return images
