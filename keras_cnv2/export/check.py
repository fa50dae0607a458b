"""Compares the outputs of an export with those of its model, on synthetic images."""

import contextlib

import numpy as np

from keras_cnv2.errors import ExportError
from keras_cnv2.models.heads import compute_dtypes

# Largest allowed difference, relative to the largest value, in float32 and in half precision. The latter is larger
# because a folded model rounds at other places.
TOLERANCE, HALF_TOLERANCE = 1e-4, 5e-2


def sample_images(height, width, channels, batch=2, seed=0):
    """Returns synthetic images `(batch, height, width, channels)`: noisy waves, whole float32 numbers in 0..255."""
    rng = np.random.default_rng(seed)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    down, along, phase = rng.uniform(1, 9, (3, batch, 1, 1, channels))
    waves = np.sin(down * y + along * x + phase) * 110 + 127
    return np.clip(waves + rng.normal(0, 10, waves.shape), 0, 255).round().astype("float32")


def tolerance_of(model):
    """Returns the largest allowed relative difference between the values of an export and those of `model`."""
    return TOLERANCE if compute_dtypes(model) == {"float32"} else HALF_TOLERANCE


def compare(name, received, expected, tolerance=TOLERANCE):
    """Raises an `ExportError` unless two arrays have the same shape and agree within `tolerance`."""
    received, expected = np.asarray(received, "float32"), np.asarray(expected, "float32")
    if received.shape != expected.shape:
        raise ExportError(f"{name}: the export's shape is {received.shape}, the model's {expected.shape}")
    difference = np.abs(received - expected).max() / max(np.abs(expected).max(), 1e-30)
    if not difference <= tolerance:  # also true for NaN
        raise ExportError(
            f"{name}: the export's values are not the model's. Received: a difference of {difference:.1e} of the "
            f"largest value, where {tolerance:g} is allowed"
        )


@contextlib.contextmanager
def full_precision():
    """Context manager that computes matrix products in full float32 on GPUs, rather than in TensorFloat-32."""
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
