"""Distributions are compared over many draws, within five standard errors: a test that is right fails once in a million
times, and, as draws depend on their keys alone, either always or never."""

import math

import keras
import numpy as np
from keras import ops

from training.data.draws import Draws

BACKEND = keras.backend.backend()

# ImageNet's statistics in 0..255.
MEAN = 255 * np.float32([0.485, 0.456, 0.406])
STD = 255 * np.float32([0.229, 0.224, 0.225])

# How many draws a test takes; PyTorch makes them one by one.
MANY = 300 if BACKEND == "torch" else 3000


def many(function, count=MANY):
    """The results of `function(Draws(7, i))` for i in `range(count)`, stacked, as NumPy arrays."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.range(count).map(lambda i: function(Draws(7, i)), num_parallel_calls=2)
        return next(dataset.batch(count).as_numpy_iterator())

    def run():
        return ops.map(lambda i: function(Draws(7, i)), ops.arange(count, dtype="int32"))

    if BACKEND == "jax":
        import jax

        run = jax.jit(run)
    return keras.tree.map_structure(ops.convert_to_numpy, run())


def assert_same_mean(values, reference):
    """Two samples have the same mean and the same mean square."""
    for power in (1, 2):
        one, two = (np.asarray(sample, "float64") ** power for sample in (values, reference))
        error = math.sqrt(one.var() / len(one) + two.var() / len(two))
        assert abs(one.mean() - two.mean()) < 5 * error


def assert_share(happened, probability):
    error = math.sqrt(probability * (1 - probability) / len(happened))
    assert abs(np.mean(happened) - probability) < 5 * error


def picture(height=32, width=40, channels=3, seed=0):
    """A uint8 image with smooth parts and rough ones, that leaves out the lowest and the highest values."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c) + c) + np.cos(y / (4 + c)) for c in range(channels)]
    image = 128 + 45 * np.stack(waves, -1) + random.normal(0, 12, (height, width, channels))
    return np.clip(image, 11, 236).astype("uint8")
