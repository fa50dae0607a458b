"""Whole pictures in square images; training data, evaluation and serving share this."""

from typing import Any

import numpy as np

from keras_cnv2.images.normalization import MEAN


def fit_picture(pixels: Any, size: int) -> tuple[Any, Any]:
    """Fits a picture into the upper left of a square image, in graphs too.

    The longest side gets `size` pixels, the other one as many as keep the proportions; below or to the right of it is
    ImageNet's mean colour. Bilinear, antialiased, rounded to whole grey levels.

    Args:
        pixels: Tensor `(height, width, 3)`, values in 0..255, any dtype.
        size: Int, the side of the image.

    Returns:
        A float32 tensor `(size, size, 3)`, and a float32 scalar: image coordinates are picture coordinates times it.
    """
    import tensorflow as tf

    sides = tf.cast(tf.shape(pixels)[:2], tf.float32)
    scale = size / tf.reduce_max(sides)
    # One factor for both sides, so that boxes are off by nothing. `tf.image.resize` rounds the sides and stretches.
    image = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=(size, size),
        scale=tf.stack([scale, scale]),
        translation=(0.0, 0.0),
        kernel_type="triangle",
        antialias=True,
    )[0]
    height, width = tf.unstack(tf.maximum(tf.round(sides * scale), 1))
    place = tf.range(float(size))
    is_picture = (place[:, None, None] < height) & (place[None, :, None] < width)
    image = tf.where(is_picture, tf.round(image), np.round(np.float32(MEAN) * 255))
    return tf.ensure_shape(image, (size, size, 3)), scale
