"""Models and images whose analysis takes a moment."""

import numpy as np

import keras_cnv2

SMALL = {"depths": (1, 2, 1, 1), "dims": (4, 6, 8, 10), "stem_stride": 1, "input_shape": (None, None, 3)}
NAMES = ("a", "b", "c")


def classifier(**arguments):
    """With values that are not those of the beginning: GRN does something."""
    model = keras_cnv2.ConvNeXtV2(**SMALL, classes=3, class_names=NAMES, **arguments)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def images(count=4, side=16):
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype("float32")
