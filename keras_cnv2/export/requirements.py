"""What exports require of the backend and of the model's dtype."""

import keras

from keras_cnv2.models.heads import compute_dtypes


def check_backend(kind):
    """Raises a `ValueError` unless the backend of Keras is TensorFlow, which exports of this `kind` need."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{kind} is made with TensorFlow as the backend of Keras: set KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )


def check_float32(model):
    """Raises a `ValueError` unless a model computes in float32, as LiteRT and ONNX exports require."""
    others = compute_dtypes(model) - {"float32"}
    if others:
        raise ValueError(
            "The model must be in float32. Convert a classifier or an encoder with `keras-cnv2 convert` to "
            ".safetensors, which has no dtype policy, and export that; build any other model again on a float32 "
            "encoder, and give it the weights with set_weights. "
            f"Received: layers in {', '.join(others)}"
        )
