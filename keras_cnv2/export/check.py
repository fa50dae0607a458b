"""Compares the outputs of an export with those of its model, on synthetic images."""

import contextlib

import numpy as np

from keras_cnv2.errors import ExportError

# Largest allowed difference, relative to the largest value.
TOLERANCE = 1e-4


def sample_images(shape, smallest=None, seed=0):
    """Returns synthetic images: noisy waves, whole float32 numbers in 0..255.

    Args:
        shape: `(N, H, W, channels)`; `None` stands for two images, and for sides of twice the smallest one.
        smallest: Int, the side of the smallest images in pixels. Only for variable sides.
        seed: Int.
    """
    batch, channels = shape[0] or 2, shape[3]
    height, width = (side or 2 * smallest for side in shape[1:3])
    rng = np.random.default_rng(seed)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    down, along, phase = rng.uniform(1, 9, (3, batch, 1, 1, channels))
    waves = np.sin(down * y + along * x + phase) * 110 + 127
    return np.clip(waves + rng.normal(0, 10, waves.shape), 0, 255).round().astype("float32")


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
