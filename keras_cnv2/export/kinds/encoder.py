"""Encoders: backbones, and classifiers without their top."""

import keras
import tensorflow as tf

from keras_cnv2.export.images import images_of
from keras_cnv2.export.labels import labels_of
from keras_cnv2.folding.fold import fold
from keras_cnv2.models.heads import features_of
from keras_cnv2.models.pictures import image_size_of, pictures_of


class ExportedEncoder:
    """A `Kind`: a `ConvNeXtV2Backbone`, or a `ConvNeXtV2` without its top. It has features only."""

    def __init__(self, model, options):
        self.model, self.options = model, options
        self.labels = labels_of(model, options.class_names)
        self.images = images_of(model, options)
        sides = self.images.shape[1:3]
        is_open = sides == (None, None) and image_size_of(model) is None
        self.pictures = (sides, None) if is_open else pictures_of(model, sides, options.resize)
        self.graph = keras.Model(model.input, features_of(model), name=model.name)

    def functions(self, names):
        check_no_resize(self.options)
        features = features_function(fold(self.graph) if self.options.fold else self.graph, self.images)
        return {"features": features, "serving_default": features}

    def check(self, served, images):
        expected = self.graph(images, training=False)
        served.outputs("features", expected, images=images)
        served.outputs("serving_default", expected, images=images)


def check_no_resize(options):
    """Raises a `ValueError` if image files are to be resized: no signature of an encoder or an FCMAE reads any."""
    if options.resize is not None:
        raise ValueError(
            "resize is for models with a head, which read image files; other models take images as arrays. "
            f"Received: resize={options.resize!r}"
        )


def features_function(graph, images):
    """Returns the signature `features`, a pair of a function and its inputs.

    Args:
        graph: Model from images to a dict of features.
        images: `keras_cnv2.export.images.Images`.
    """

    def features(pixels):
        return {name: tf.cast(values, tf.float32) for name, values in graph(images.checked(pixels)).items()}

    return features, [tf.TensorSpec(images.shape, images.dtype, "images")]
