"""Initial values of weights without JAX, which would compile a function for every shape that it draws.

Keras's own are drawn by processes that tests start: test_recipes_run_without_tensorflow.
"""

from types import SimpleNamespace

import numpy as np
from keras import ops
from keras.src.initializers import random_initializers
from keras.src.random.seed_generator import draw_seed


def draw_with_numpy():
    drawn_by_keras = random_initializers.random

    def generator(seed):
        return np.random.default_rng(ops.convert_to_numpy(draw_seed(seed)))

    def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return ops.convert_to_tensor(generator(seed).normal(mean, stddev, shape).astype("float32"), dtype)

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return ops.convert_to_tensor(generator(seed).uniform(minval, maxval, shape).astype("float32"), dtype)

    random_initializers.random = SimpleNamespace(**{**vars(drawn_by_keras), "normal": normal, "uniform": uniform})
