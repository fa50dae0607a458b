"""Values of any range -> what models expect of pictures, 0..255. Imports no TensorFlow."""

import logging

import keras
import numpy as np

from keras_cnv2.images.normalization import pixel_statistics

from ...errors import DataError

logger = logging.getLogger(__name__)

WHITE = 255

# Images whose statistics are computed at once.
_BLOCK = 64


def as_pixels(path, train, test, scale=None, mean=None, deviation=None):
    """Images as models expect them: as they are if they are uint8 and nothing is given.

    Args:
        path: What messages call them.
        train, test: Arrays `(N, H, W, channels)`; `test` may be `None`.
        scale: Optional float, the value that becomes 255.
        mean, deviation: Optional floats, one a channel; they become those that models expect of pictures. `None`,
            where there is no scale either: those of `train`, unless that is uint8.

    Returns:
        The arrays, uint8 or else float32, and what was taken from `train`: a dict of "mean" and "deviation", or empty.

    Raises:
        DataError: If there is not one mean and deviation for each channel, or values are not finite.
    """
    if train.dtype == np.uint8 and scale is None and mean is None:
        return train, test, {}
    taken = {}
    if scale is None and mean is None:
        mean, deviation = statistics(path, train)
        taken = {"mean": mean, "deviation": deviation}
        options = (f"--{name} {','.join(f'{value:.6g}' for value in values)}" for name, values in taken.items())
        logger.warning(
            "%s has values of %s: each channel's mean and deviation in train_images become those that models expect of "
            "pictures. For other data the same ones: %s",
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
    """Mean and standard deviation of each channel, two lists of floats. A constant one has the deviation 1."""
    sums = np.zeros((2, images.shape[-1]))
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].astype("float64").reshape(-1, images.shape[-1])
        sums += block.sum(axis=0), (block**2).sum(axis=0)
    mean, squares = sums / (images.size / images.shape[-1])
    if not np.isfinite(squares).all():
        raise DataError(f"train_images must be finite numbers. Received: {path} with NaN or infinity")
    deviation = np.sqrt(np.maximum(squares - mean**2, 0))
    # What rounding leaves of a constant is no deviation.
    deviation = np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-30), deviation, 1.0)
    return mean.tolist(), deviation.tolist()


def _scaled(images, factor, shift):
    images = images.astype("float32")
    images *= factor.astype("float32")
    images += shift.astype("float32")
    return images


def _is_finite(image):
    return np.isfinite(image).all()
