"""Batches of images for the calibration of a quantized model, from paths, images or batches."""

import os

import numpy as np

from keras_cnv2.images.pictures import READING
from keras_cnv2.models.pictures import load_image_for, to_input


def batches_of(representative, model, shape, resize=None, reading=READING):
    """Reads images and arranges them in batches of one shape.

    Args:
        representative: Iterable of paths, images `(H, W, C)` and batches `(N, H, W, C)`, or one array of images.
        model: The model to calibrate, which determines how image files are resized and normalised.
        shape: `(batch, H, W, C)`. The last batch is filled up with the first images.
        resize: Optional "crop" or "squash", see `keras_cnv2.models.pictures.framing_of`.
        reading: `keras_cnv2.images.pictures.Reading`, how image files are read.

    Returns:
        List of float32 arrays of this shape.

    Raises:
        ValueError: If there are no images, or images of another shape.
        OSError: If an image file cannot be read.
    """
    if isinstance(representative, (str, bytes, os.PathLike)):
        raise ValueError(f"representative must be an iterable of paths or images. Received: {representative!r}")
    images = [image for item in representative for image in _images(item, model, shape[1:], resize, reading)]
    if not images:
        raise ValueError("representative must contain at least one image, better a hundred. Received: none")
    missing = -len(images) % shape[0]
    images += [images[i % len(images)] for i in range(missing)]
    return [np.stack(images[start : start + shape[0]]) for start in range(0, len(images), shape[0])]


def as_dtype(images, dtype):
    """Returns the images in the input dtype of an export, "float32" or "uint8"."""
    return images.round().clip(0, 255).astype("uint8") if np.dtype(dtype) == np.uint8 else images


def _images(item, model, shape, resize, reading):
    """Returns the images of one item of `representative` as a list of float32 arrays."""
    if isinstance(item, (str, os.PathLike)):
        return [_load(item, model, shape, resize, reading)]
    array = np.asarray(item, "float32")
    array = array[None] if array.ndim == len(shape) else array
    if array.shape[1:] != tuple(shape):
        raise ValueError(
            f"representative must contain images of shape {tuple(shape)} or batches of them. "
            f"Received: shape {np.shape(item)}"
        )
    return list(array)


def _load(path, model, shape, resize, reading):
    height, width, channels = shape
    if height != width or channels not in (1, 3):
        raise ValueError(
            "Image files can only become square images of one or three channels: give arrays, not paths. "
            f"Received: {os.fspath(path)!r} for images of shape {tuple(shape)}"
        )
    return to_input(model, load_image_for(model, path, height, resize, reading))
