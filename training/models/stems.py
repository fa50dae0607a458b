"""Encoders that learnt from small images, under heads for large ones: weights for a stem of a larger stride."""

import numpy as np

import keras_cnv2
from keras_cnv2.checkpoints.source import fetch_weights, open_weights
from keras_cnv2.restore import read_architecture

STEM = "downsample_layers.0.0.weight"  # (channels of the first stage, channels of the image, stride, stride)


def spread_weights(weights, size, stride):
    """The weights of an encoder with a stem of smaller stride, for one of a larger stride.

    The kernel is spread: each of its values goes, divided, to a square of pixels. The encoder gives the numbers that
    the original one gives for the means of these squares: for an image of half, or a quarter, of the height and width.

    Args:
        weights: Path of a file, or tag of a published checkpoint.
        size: Name of the size that a tag is for, or `None`.
        stride: Int, 4, 2 or 1.

    Returns:
        Dict from official names to arrays; `None` for weights whose stem has no smaller stride.

    Raises:
        CheckpointError: If the weights cannot be had or read.
    """
    with open_weights(fetch_weights(weights, size)) as contents:
        found = read_architecture(contents)
        if found.stem_stride >= stride:
            return None
        encoder = keras_cnv2.ConvNeXtV2Backbone(
            depths=found.depths,
            dims=found.dims,
            stem_stride=found.stem_stride,
            input_shape=(None, None, found.channels),
            weights=weights,
        )
    tensors = keras_cnv2.state_dict(encoder)
    square = np.ones((stride // found.stem_stride,) * 2, "float32")
    return {**tensors, STEM: np.kron(tensors[STEM], square / square.size)}
