"""Compiles a function, on backends that have graphs."""

import keras


def compiled(function):
    """Returns the function compiled to a graph on JAX and TensorFlow, where eager execution is many times slower."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    return function
