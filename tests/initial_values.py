"""Initial values of weights without JAX, which would compile a function for every shape that it draws.

Keras's own are drawn by processes that tests start: test_recipes_run_without_tensorflow.
"""

from types import SimpleNamespace

import numpy as np
from keras import ops
from keras.src.initializers import random_initializers


def draw_with_numpy():
    keras_draws = random_initializers.random

    def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        if not isinstance(seed, int):  # a generator, whose state may be traced
            return keras_draws.normal(shape, mean, stddev, dtype, seed)
        return _tensor(np.random.default_rng(seed).normal(mean, stddev, shape), dtype)

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        if not isinstance(seed, int):
            return keras_draws.uniform(shape, minval, maxval, dtype, seed)
        return _tensor(np.random.default_rng(seed).uniform(minval, maxval, shape), dtype)

    random_initializers.random = SimpleNamespace(**{**vars(keras_draws), "normal": normal, "uniform": uniform})


def _tensor(values, dtype):
    return ops.convert_to_tensor(values.astype("float32"), dtype)
