"""Affine transforms of images as PIL writes them. Imports no TensorFlow."""

from keras import ops


def affine(images, coefficients, fill_mode):
    """Takes output pixel (x, y) from (a x + b y + c, d x + e y + f), where whole numbers are the corners of pixels.

    Args:
        images: Float32 tensor `(H, W, C)` or `(N, H, W, C)`.
        coefficients: a to f, scalars or tensors `(N,)`. Those of `PIL.Image.transform`.
        fill_mode: What lies outside, see `keras.ops.image.affine_transform`.
    """
    one_each = ops.shape(images)[:-3]
    a, b, c, d, e, f = (ops.broadcast_to(ops.cast(x, "float32"), one_each) for x in coefficients)
    zero = ops.zeros_like(a)
    # For Keras whole numbers are the centres of pixels.
    transform = ops.stack([a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, zero, zero], axis=-1)
    return ops.image.affine_transform(images, transform, "bilinear", fill_mode, data_format="channels_last")
