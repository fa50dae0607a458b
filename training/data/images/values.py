"""Scales values of any range to the range that models expect, 0..255. Imports no TensorFlow."""

import logging

import keras
import numpy as np

from keras_cnv2.images.normalization import pixel_statistics

from ...errors import DataError

logger = logging.getLogger(__name__)

WHITE = 255

# Number of images whose statistics are computed at once.
_BLOCK = 64


def as_pixels(path, train, test, scale=None, mean=None, deviation=None):
    """Scales images to the range that models expect. Leaves uint8 images unchanged if nothing is given.

    Args:
        path: Path of the data, for messages.
        train, test: Arrays `(N, H, W, channels)`; `test` may be `None`.
        scale: Optional float, the value that becomes 255.
        mean, deviation: Optional floats, one for each channel. Images are scaled such that these become the mean and
            deviation that models expect. If neither these nor `scale` are given, those of `train` are used, unless it
            is uint8.

    Returns:
        The two arrays, uint8 or float32, and the statistics taken from `train`: a dict with "mean" and "deviation", or
        an empty one.

    Raises:
        DataError: If `mean` does not have one value for each channel, or values are not finite.
    """
    if train.dtype == np.uint8 and scale is None and mean is None:
        return train, test, {}
    taken = {}
    if scale is None and mean is None:
        mean, deviation = statistics(path, train)
        taken = {"mean": mean, "deviation": deviation}
        options = (f"--{name} {','.join(f'{value:.6g}' for value in values)}" for name, values in taken.items())
        logger.warning(
            "%s has values of %s: they are scaled by the mean and deviation of each channel in train_images, to those "
            "that models expect. To scale other data in the same way, give %s",
            path,
            train.dtype,
            " ".join(options),
        )
    channels = train.shape[-1]
    if mean is None:
        factor, shift = np.full(channels, WHITE / scale), np.zeros(channels)
    elif len(mean) != channels:
        raise DataError(f"mean and deviation must have a number for each channel. Received: {path} with {channels}")
    else:
        expected_mean, expected_deviation = map(keras.ops.convert_to_numpy, pixel_statistics(channels))
        factor = expected_deviation / np.array(deviation)
        shift = expected_mean - np.array(mean) * factor
    scaled = [None if images is None else _scaled(images, factor, shift) for images in (train, test)]
    for name, images in zip(("train_images", "test_images"), scaled):
        if images is not None and not all(map(_is_finite, images)):
            raise DataError(f"{name} must be finite numbers. Received: {path} with NaN or infinity")
    return *scaled, taken


def statistics(path, images):
    """Returns mean and standard deviation of each channel, two lists of floats. Constant channels get deviation 1."""
    sums = np.zeros((2, images.shape[-1]))
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].astype("float64").reshape(-1, images.shape[-1])
        sums += block.sum(axis=0), (block**2).sum(axis=0)
    mean, squares = sums / (images.size / images.shape[-1])
    if not np.isfinite(squares).all():
        raise DataError(f"train_images must be finite numbers. Received: {path} with NaN or infinity")
    deviation = np.sqrt(np.maximum(squares - mean**2, 0))
    # Rounding errors of a constant channel are not a deviation.
    deviation = np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-30), deviation, 1.0)
    return mean.tolist(), deviation.tolist()


def _scaled(images, factor, shift):
    images = images.astype("float32")
    images *= factor.astype("float32")
    images += shift.astype("float32")
    return images


def _is_finite(image):
    return np.isfinite(image).all()
