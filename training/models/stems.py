"""Adapts encoders that were trained on small images to a stem with a larger stride, for heads on large images."""

import numpy as np

import keras_cnv2
from keras_cnv2.checkpoints.source import fetch_weights, open_weights
from keras_cnv2.restore import read_architecture

STEM = "downsample_layers.0.0.weight"  # (channels of the first stage, channels of the image, stride, stride)


def spread_weights(weights, size, stride):
    """Converts the weights of an encoder to a stem with a larger stride.

    Each value of the stem's kernel is divided evenly among a square of pixels. The new encoder computes the same as the
    original one on an image of half or a quarter of the height and width, in which each pixel is the mean of such a
    square.

    Args:
        weights: Path of a file, or tag of a published checkpoint.
        size: Name of the size that a tag is for, or `None`.
        stride: Int, 4, 2 or 1, the new stride.

    Returns:
        Dict from official names to arrays; `None` if the stem of the weights does not have a smaller stride.

    Raises:
        CheckpointError: If the weights cannot be fetched or read.
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
