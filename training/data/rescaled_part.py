"""A part of a rescaled picture, of which no more is resized, or read, than that part is made of."""

import tensorflow as tf


def pixels_of(sides, scale, start, size):
    """The pixels of a picture that a window of the rescaled picture is made of.

    Args:
        sides: Int32 tensor, height and width of the picture.
        scale: Float32 tensor, one factor or one for each axis.
        start: Float32 tensor, where the window begins in the rescaled picture, from above and from the left; it may lie
            outside.
        size: Int or int32 tensor, height and width of the window.

    Returns:
        Two int32 tensors: where these pixels begin and how many there are, down and along.
    """
    # As far as the kernel of the resize reaches; with less, TensorFlow would resize along one axis alone.
    margin = tf.maximum(1 / scale, 1) + 1
    end = start + tf.cast(size, tf.float32)
    first = tf.clip_by_value(tf.cast(tf.floor(start / scale - margin), tf.int32), 0, sides - 1)
    last = tf.clip_by_value(tf.cast(tf.math.ceil(end / scale + margin), tf.int32), first + 1, sides)
    return first, last - first


def resized(part, corner, scale, start, size):
    """The window, bilinear, antialiased where it shrinks.

    Args:
        part: Tensor `(height, width, 3)`, the pixels that `pixels_of` names.
        corner: Int32 tensor, where they begin in the picture.
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
