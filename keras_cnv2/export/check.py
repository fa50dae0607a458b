"""What was exported against the model it was made of, on made-up images."""

import contextlib

import numpy as np

from keras_cnv2.errors import ExportError
from keras_cnv2.models.heads import compute_dtypes

# Largest difference, relative to the largest value: in float32, and in half precision, where folding rounds otherwise.
TOLERANCE, HALF_TOLERANCE = 1e-4, 5e-2


def sample_images(height, width, channels, batch=2, seed=0):
    """Made-up images `(batch, height, width, channels)`: float32 whole numbers in 0..255, waves with a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    down, along, phase = rng.uniform(1, 9, (3, batch, 1, 1, channels))
    waves = np.sin(down * y + along * x + phase) * 110 + 127
    return np.clip(waves + rng.normal(0, 10, waves.shape), 0, 255).round().astype("float32")


def tolerance_of(model):
    """How far an export's values may be from the model's."""
    return TOLERANCE if compute_dtypes(model) == {"float32"} else HALF_TOLERANCE


def compare(name, received, expected, tolerance=TOLERANCE):
    """Raises an `ExportError` unless two arrays agree."""
    received, expected = np.asarray(received, "float32"), np.asarray(expected, "float32")
    if received.shape != expected.shape:
        raise ExportError(f"{name}: the export's shape is {received.shape}, the model's {expected.shape}")
    difference = np.abs(received - expected).max() / max(np.abs(expected).max(), 1e-30)
    if not difference <= tolerance:  # NaN is no agreement either
        raise ExportError(
            f"{name}: the export's values are not the model's. Received: a difference of {difference:.1e} of the "
            f"largest value, where {tolerance:g} is allowed"
        )


@contextlib.contextmanager
def full_precision():
    """Products in float32 on GPUs that would take the coarser TensorFloat-32."""
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
