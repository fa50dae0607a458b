"""Resizes whole images into square ones. Training data, evaluation and serving share this code."""

from typing import Any

import numpy as np

from keras_cnv2.images.normalization import MEAN


def fit_picture(pixels: Any, size: int) -> tuple[Any, Any]:
    """Resizes an image to fit into the upper left corner of a square one. It also works in graphs.

    The longer side becomes `size` pixels and the aspect ratio is kept; the rest of the square is filled with ImageNet's
    mean colour. Resizing is bilinear with antialiasing, and values are rounded to whole numbers.

    ```python
    pixels = keras.utils.img_to_array(keras.utils.load_img("photo.jpg"))  # (480, 640, 3)
    image, scale = keras_cnv2.detection.fit_picture(pixels, 512)  # (512, 512, 3)
    scale  # 0.8
    boxes = boxes * scale
    ```

    Args:
        pixels: Tensor `(height, width, 3)`, values in 0..255, any dtype.
        size: Int, the side of the square image in pixels.

    Returns:
        A float32 tensor `(size, size, 3)`, and a float32 scalar, the scale: coordinates in the square image are
        coordinates in the original image times the scale.
    """
    import tensorflow as tf

    sides = tf.cast(tf.shape(pixels)[:2], tf.float32)
    scale = size / tf.reduce_max(sides)
    # The same scale for both sides keeps boxes exact. `tf.image.resize` would round the sides and stretch the image.
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
