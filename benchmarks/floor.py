"""The lower bound of times: only the matrix products, as fast as TensorFlow computes them."""

import math

import numpy as np
import tensorflow as tf

from benchmarks.graphs import graph
from benchmarks.tasks import products

WIDTH = 2048  # width of the square matrices in `rate`


def rate(task, dtype="float32"):
    """Returns a function that multiplies two square matrices of `WIDTH`, to measure the machine's speed."""
    one, two = (tf.constant(np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)), dtype) for seed in (0, 1))
    product = tf.function(tf.matmul)
    return lambda: product(one, two)[0, 0].numpy()


def inference(task):
    """Returns a function that computes a model's matrix products in float32, each on the output of the one before.

    In such a chain, no product can be skipped or run in parallel with another.
    """
    shapes = products(task)
    rng = np.random.default_rng(0)
    # Variables, like the weights of a model; scaled so that outputs have the magnitude of inputs.
    kernels = [tf.Variable(rng.standard_normal(shape[1:], "float32") / math.sqrt(shape[1])) for shape in shapes]

    def chain(x):
        for (rows, width, _), kernel in zip(shapes[:-1], kernels):
            x = tf.reshape(x, (rows, width)) @ kernel
        return tf.reduce_mean(tf.reshape(x, (task.batch, -1, task.dims[-1])), 1) @ kernels[-1]

    rows, width, _ = shapes[0]
    patches = rng.standard_normal((rows, width), "float32")
    run = graph(chain, patches)

    expected = patches
    for (rows, width, _), kernel in zip(shapes[:-1], kernels):
        expected = expected.reshape(rows, width) @ kernel.numpy()
    expected = expected.reshape(task.batch, -1, task.dims[-1]).mean(1) @ kernels[-1].numpy()
    np.testing.assert_allclose(run(), expected, atol=1e-4 * np.abs(expected).max())
    return run
