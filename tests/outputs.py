"""What models compute, as NumPy arrays."""

import keras


def outputs(model, x):
    """On JAX from one compiled step: of an eager call, it would compile every operation for every shape."""
    if keras.backend.backend() == "jax":
        return model.predict_on_batch(x)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))
