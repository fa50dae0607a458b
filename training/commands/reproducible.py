"""Makes a run reproducible: the same seed gives the same results."""

import keras


def make_reproducible(recipe):
    """Seeds all random generators; with `recipe.deterministic`, also makes TensorFlow's operations deterministic."""
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
