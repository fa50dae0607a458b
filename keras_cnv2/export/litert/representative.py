"""Images to calibrate a quantized model with, from what users have: paths, images or batches."""

import os

import numpy as np

from keras_cnv2.images.pictures import READING
from keras_cnv2.models.pictures import load_image_for, to_input


def batches_of(representative, model, shape, resize=None, reading=READING):
    """Reads images and arranges them as batches of one shape.

    Args:
        representative: Iterable of paths, images `(H, W, C)` and batches `(N, H, W, C)`, or one array of images.
        model: The model they are for, which says how pictures become images.
        shape: `(batch, H, W, C)`. The last batch is filled up with the first images.
        resize: How pictures become images, see `keras_cnv2.models.pictures.framing_of`.
        reading: `keras_cnv2.images.pictures.Reading`, how they are read.

    Returns:
        List of arrays of this shape, float32.

    Raises:
        ValueError: If there are none, or they have another shape.
        OSError: If a picture cannot be read.
    """
    if isinstance(representative, (str, bytes, os.PathLike)):
        raise ValueError(f"representative must be an iterable of paths or images. Received: {representative!r}")
    images = [image for item in representative for image in _images(item, model, shape[1:], resize, reading)]
    if not images:
        raise ValueError("representative must hold one image at least, better a hundred. Received: none")
    missing = -len(images) % shape[0]
    images += [images[i % len(images)] for i in range(missing)]
    return [np.stack(images[start : start + shape[0]]) for start in range(0, len(images), shape[0])]


def as_dtype(images, dtype):
    """The images as a model for "float32" or "uint8" takes them."""
    return images.round().clip(0, 255).astype("uint8") if np.dtype(dtype) == np.uint8 else images


def _images(item, model, shape, resize, reading):
    """The images of one item, as float32 arrays."""
    if isinstance(item, (str, os.PathLike)):
        return [_load(item, model, shape, resize, reading)]
    array = np.asarray(item, "float32")
    array = array[None] if array.ndim == len(shape) else array
    if array.shape[1:] != tuple(shape):
        raise ValueError(
            f"representative images must have the shape {tuple(shape)}, or that after an axis of images. "
            f"Received: shape {np.shape(item)}"
        )
    return list(array)


def _load(path, model, shape, resize, reading):
    height, width, channels = shape
    if height != width or channels not in (1, 3):
        raise ValueError(
            "Pictures become square images of one or three channels: give arrays, not paths, for others. "
            f"Received: {os.fspath(path)!r} for images of shape {tuple(shape)}"
        )
    return to_input(model, load_image_for(model, path, height, resize, reading))
