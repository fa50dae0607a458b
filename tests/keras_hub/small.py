"""Small models of both kinds."""

import keras_cnv2
from keras_cnv2.keras_hub import ConvNeXtV2Backbone, ConvNeXtV2ImageClassifier
from tests.segmentation.small import with_values

ARCHITECTURE = {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10)}
STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.1)}


def own_model(**arguments):
    """A classifier of this package whose weights all matter."""
    shape = {"input_shape": (32, 32, 3), "classes": 3, "classifier_activation": None, **STATISTICS}
    return with_values(keras_cnv2.ConvNeXtV2(**{**ARCHITECTURE, **shape, **arguments}))


def backbone(**arguments):
    return ConvNeXtV2Backbone(**{**ARCHITECTURE, "image_shape": (32, 32, 3), **arguments})


def classifier(**arguments):
    return ConvNeXtV2ImageClassifier(**{"backbone": backbone(), "num_classes": 3, **arguments})
