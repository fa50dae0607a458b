"""Normalisation of images from values in 0..255, on any backend."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cnv2.layers.built import needs_build

# ImageNet's mean and standard deviation of RGB values in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def pixel_statistics(channels):
    """Returns mean and standard deviation per channel in units of 0..255, two float32 tensors of shape `(channels,)`.

    They are ImageNet's for three channels, and the average of these for any other number of channels.
    """
    mean, std = (MEAN, STD) if channels == 3 else (np.full(channels, np.mean(v)) for v in (MEAN, STD))
    return tuple(ops.convert_to_tensor(np.float32(v) * 255) for v in (mean, std))


def preprocess_input(x: Any) -> Any:
    """Normalises images for models built with `include_preprocessing=False`.

    ```python
    model = keras_cnv2.ConvNeXtV2Atto(weights="imagenet", include_preprocessing=False)
    x = keras_cnv2.preprocess_input(images)  # (N, height, width, 3)
    probabilities = model.predict(x)  # (N, 1000)
    ```

    Args:
        x: Array or tensor `(..., channels)`, values in 0..255, any dtype.

    Returns:
        A float32 tensor of the same shape: `(x - mean) / std`, with ImageNet's mean and std for three channels and
        their averages for any other number.
    """
    mean, std = pixel_statistics(x.shape[-1])
    return (ops.cast(x, "float32") - mean) / std


def restore_pixels(x):
    """Converts normalised images back to values in 0..255; the inverse of `preprocess_input`."""
    mean, std = pixel_statistics(x.shape[-1])
    return ops.cast(x, "float32") * std + mean


@keras.saving.register_keras_serializable(package="keras_cnv2")
class Preprocessing(keras.layers.Layer):
    """`preprocess_input` as the first layer of a model. It computes in float32 under any dtype policy.

    Call arguments:
        images: Tensor `(N, H, W, channels)`, values in 0..255, any dtype.

    Returns:
        A float32 tensor of the same shape.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.built = not needs_build(self)

    def call(self, images):
        return preprocess_input(images)

    def compute_output_shape(self, input_shape):
        return input_shape
