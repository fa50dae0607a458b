"""A function as a graph, on backends that have graphs."""

import keras


def compiled(function):
    """The function as a graph where the backend has graphs: one operation at a time would take many times as long."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    return function
