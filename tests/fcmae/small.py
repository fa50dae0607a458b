"""A model of a few thousand weights and images for it."""

import functools

import keras
import numpy as np

import keras_cnv2
from tests import golden

SMALL = {"depths": (1, 1, 1, 1), "dims": (4, 8, 12, 16)}
ENCODERS = ("visible", "dense")
TENSORFLOW = keras.backend.backend() == "tensorflow"
# For `compile` where the graph is not the point: TensorFlow traces for longer than these models compute. JAX is the
# other way round.
EAGERLY = {"run_eagerly": TENSORFLOW}


def small(image_size=32, stem_stride=1, channels=3, **kwargs):
    backbone = keras_cnv2.ConvNeXtV2Backbone(**SMALL, stem_stride=stem_stride, input_shape=(None, None, channels))
    return keras_cnv2.FCMAE(backbone, image_size, decoder_dim=16, **kwargs)


@functools.cache
def shared(encoder="visible", image_size=32):
    """A model for tests that leave it as it is."""
    return scramble(small(image_size, encoder=encoder))


def images(count=4, height=32, width=32, channels=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, height, width, channels)).astype("float32")


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def scramble(model, seed=0):
    """Gives every weight a value, GRN's too, so that nothing hides behind a zero."""
    golden.set_weights(model, seed)
    return model
