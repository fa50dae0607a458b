"""Affine transforms of images with PIL's coefficients. Imports no TensorFlow."""

from keras import ops


def affine(images, coefficients, fill_mode):
    """Samples output point (x, y) from input point (a x + b y + c, d x + e y + f), bilinearly.

    Integer coordinates are the corners of pixels, not their centres.

    Args:
        images: Float32 tensor `(H, W, C)` or `(N, H, W, C)`.
        coefficients: a to f, scalars or tensors `(N,)`, as in `PIL.Image.transform`.
        fill_mode: How to fill pixels from outside the image, see `keras.ops.image.affine_transform`.

    Returns:
        A tensor like `images`.
    """
    one_each = ops.shape(images)[:-3]
    a, b, c, d, e, f = (ops.broadcast_to(ops.cast(x, "float32"), one_each) for x in coefficients)
    zero = ops.zeros_like(a)
    # In Keras, integer coordinates are the centres of pixels.
    transform = ops.stack([a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, zero, zero], axis=-1)
    return ops.image.affine_transform(images, transform, "bilinear", fill_mode, data_format="channels_last")
