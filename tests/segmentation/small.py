"""Small models with weights that matter."""

import keras
import numpy as np

import keras_cnv2
from keras_cnv2.segmentation import UPerNet

ARCHITECTURE = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10)}
CLASSES = 5


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def backbone(**arguments):
    return keras_cnv2.ConvNeXtV2Backbone(**{**ARCHITECTURE, "pyramid_norms": True, **arguments})


def upernet(*, body=None, values=True, **arguments):
    model = UPerNet(body or backbone(), **{"classes": CLASSES, "width": 8, "auxiliary_width": 6, **arguments})
    return with_values(model) if values else model


def with_values(model):
    """Gives every weight a value, statistics of batch normalisation included."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        scale = weight.path.endswith(("norm/gamma", "variance"))
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if scale else rng.normal(0, 0.2, weight.shape))
    return model


def images(count=2, height=65, width=76, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, height, width, 3)).astype("float32")


def labels(count=2, height=65, width=76, seed=0, classes=CLASSES):
    drawn = np.random.default_rng(seed).integers(0, classes, (count, height, width))
    drawn[:, :7] = 255
    return drawn.astype("int32")
