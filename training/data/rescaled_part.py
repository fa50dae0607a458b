"""A window of a rescaled picture, computed from only those pixels of the picture that it needs."""

import tensorflow as tf


def pixels_of(sides, scale, start, size):
    """Returns which pixels of a picture are needed to compute a window of the rescaled picture.

    Args:
        sides: Int32 tensor, height and width of the picture.
        scale: Float32 tensor, one factor or one for each axis.
        start: Float32 tensor, top and left of the window in the rescaled picture; they may lie outside.
        size: Int or int32 tensor, height and width of the window.

    Returns:
        Two int32 tensors: top and left, height and width of the part of the picture.
    """
    # The margin covers the kernel of the resize; with less, TensorFlow would resize along one axis alone.
    margin = tf.maximum(1 / scale, 1) + 1
    end = start + tf.cast(size, tf.float32)
    first = tf.clip_by_value(tf.cast(tf.floor(start / scale - margin), tf.int32), 0, sides - 1)
    last = tf.clip_by_value(tf.cast(tf.math.ceil(end / scale + margin), tf.int32), first + 1, sides)
    return first, last - first


def resized(part, corner, scale, start, size):
    """Computes the window, bilinear, with antialiasing where it shrinks.

    Args:
        part: Tensor `(height, width, 3)`, the pixels that `pixels_of` selects.
        corner: Int32 tensor, top and left of the part in the picture.
        scale, start, size: As in `pixels_of`.

    Returns:
        A float32 tensor `(*size, 3)`.
    """
    return tf.raw_ops.ScaleAndTranslate(
        images=part[None],
        size=tf.broadcast_to(size, (2,)),
        scale=tf.broadcast_to(scale, (2,)),
        translation=tf.cast(corner, tf.float32) * scale - start,
        kernel_type="triangle",
        antialias=True,
    )[0]
