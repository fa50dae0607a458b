"""Normalisation of images from values in 0..255, on any backend."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cnv2.layers.built import needs_build

# ImageNet's mean and standard deviation of RGB values in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def channel_statistics(channels, mean=None, std=None):
    """Returns mean and standard deviation per channel in units of 0..1, two tuples of floats.

    Args:
        channels: Int, the number of channels.
        mean, std: Those of a model, or `None` for the default ones: ImageNet's for three channels, and the average of
            these for any other number of channels.
    """
    return tuple(
        tuple(own) if own is not None else default if channels == 3 else (float(np.mean(default)),) * channels
        for own, default in ((mean, MEAN), (std, STD))
    )


def pixel_statistics(channels, mean=None, std=None):
    """Returns `channel_statistics` in units of 0..255, two float32 tensors of shape `(channels,)`."""
    return tuple(ops.convert_to_tensor(np.float32(v) * 255) for v in channel_statistics(channels, mean, std))


def check_statistics(channels, mean, std):
    """Checks the arguments `mean` and `std` of a model or layer.

    Args:
        channels: Int, or `None` if it is not known.
        mean, std: Sequences of numbers, or `None`.

    Returns:
        `mean` and `std` as tuples of floats, or `None` where they are `None`.

    Raises:
        ValueError: If one of them does not have a finite number for each channel, or a deviation is not positive.
    """

    def checked(name, values, is_allowed, allowed):
        if values is None:
            return None
        listed = [*values] if isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, str) else []
        numbers = all(isinstance(value, Real) and not isinstance(value, bool) for value in listed)
        if not listed or len(listed) != (channels or len(listed)) or not numbers or not all(map(is_allowed, listed)):
            count = "a" if channels is None else f"{channels}"
            raise ValueError(
                f"{name} must be a sequence of {allowed}, in units of 0..1 of the pixels' range, {count} for each "
                f"image's channels. Received: {name}={values!r}"
            )
        return tuple(map(float, listed))

    return (
        checked("mean", mean, math.isfinite, "finite numbers"),
        checked("std", std, lambda value: math.isfinite(value) and value > 0, "positive numbers"),
    )


def preprocess_input(x: Any, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Any:
    """Normalises images for models built with `include_preprocessing=False`.

    ```python
    model = keras_cnv2.ConvNeXtV2Atto(weights="imagenet", include_preprocessing=False)
    x = keras_cnv2.preprocess_input(images, model.mean, model.std)  # (N, height, width, 3)
    probabilities = model.predict(x)  # (N, 1000)
    ```

    Args:
        x: Array or tensor `(..., channels)`, values in 0..255, any dtype.
        mean, std: Sequences of floats, one per channel, in units of 0..1: mean and standard deviation of the images
            that a model was trained on, as in its attributes `mean` and `std`. `None` for ImageNet's with three
            channels, and their averages with any other number.

    Returns:
        A float32 tensor of the same shape: `(x / 255 - mean) / std`.
    """
    mean, std = pixel_statistics(x.shape[-1], *check_statistics(x.shape[-1], mean, std))
    return (ops.cast(x, "float32") - mean) / std


def restore_pixels(x, mean=None, std=None):
    """Converts normalised images back to values in 0..255; the inverse of `preprocess_input`."""
    mean, std = pixel_statistics(x.shape[-1], mean, std)
    return ops.cast(x, "float32") * std + mean


@keras.saving.register_keras_serializable(package="keras_cnv2")
class Preprocessing(keras.layers.Layer):
    """`preprocess_input` as the first layer of a model. It computes in float32 under any dtype policy.

    Args:
        mean, std: As in `preprocess_input`.

    Call arguments:
        images: Tensor `(N, H, W, channels)`, values in 0..255, any dtype.

    Returns:
        A float32 tensor of the same shape.
    """

    def __init__(self, mean=None, std=None, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.mean, self.std = check_statistics(None, mean, std)
        self.built = not needs_build(self)

    def call(self, images):
        return preprocess_input(images, self.mean, self.std)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "std": self.std}
