"""Segmentation models: class maps of images, or of one image file of any size."""

import numpy as np
import tensorflow as tf

from keras_cnv2.export.check import compare, sample_images
from keras_cnv2.export.images import images_of
from keras_cnv2.export.labels import one_line_each
from keras_cnv2.folding.fold import fold
from keras_cnv2.images.classes import numbered
from keras_cnv2.images.header import is_served, picture_size, pixel_limit
from keras_cnv2.models.heads import as_taken
from keras_cnv2.segmentation.labels import labels_of, of_each_label

# One file only: a batch would need files of the same size.
ENCODED = tf.TensorSpec((1,), tf.string, "encoded")


class ExportedSegmenter:
    """A `Kind`: a `UPerNet` or a DeepLabV3+ on a backbone of this package."""

    def __init__(self, model, options):
        if options.resize is not None:
            raise ValueError(
                f"Segmentation models do not resize images: leave resize out. Received: resize={options.resize!r}"
            )
        self.model, self.options = model, options
        self.labels = one_line_each(_class_names(model, options.class_names))
        self.images = images_of(model.backbone, options)
        self.pictures = self.images.shape[1:3], None

    def functions(self, names):
        predict = fold(self.model) if self.options.fold else self.model
        reading = self.options.reading

        def classify(images):
            return _answer(predict(self.images.checked(images), training=False))

        def serve_jpeg(encoded):
            contents = tf.ensure_shape(encoded, (1,))[0]
            height, width = picture_size(contents)
            rules = [
                tf.debugging.Assert(is_served(contents), ["Send a JPEG, PNG or WebP picture"]),
                tf.debugging.assert_less_equal(
                    height * width,
                    pixel_limit(reading.max_pixels),
                    f"Pictures have at most {reading.max_pixels} pixels",
                ),
            ]
            with tf.control_dependencies(rules):
                image = tf.cast(reading.pixels(tf.identity(contents)), tf.float32)[None]
            return classify(as_taken(self.model, image))

        found = {"serving_default": (classify, [tf.TensorSpec(self.images.shape, self.images.dtype, "images")])}
        if self.images.shape == (None, None, None, 3):
            found["serve_jpeg"] = (serve_jpeg, [ENCODED])
        return found

    def check(self, served, images):
        self._agree(served, images, served.outputs("serving_default", {}, images=images))
        if "serve_jpeg" in served.signatures:
            picture = sample_images((1, *images.shape[1:]), seed=1)
            encoded = tf.io.encode_png(tf.cast(picture[0], tf.uint8))
            outputs = served.outputs("serve_jpeg", {}, encoded=encoded[None])
            self._agree(served, as_taken(self.model, picture), outputs)

    def _agree(self, served, images, outputs):
        """Raises an `ExportError` unless the outputs are the model's.

        The class maps are compared by the probabilities of their classes, because rounding may choose another one of
        nearly equally probable classes.
        """
        logits = tf.cast(self.model(images, training=False), tf.float32)
        probabilities = np.asarray(tf.nn.softmax(of_each_label(logits)))
        best = probabilities.max(-1)
        chosen = np.take_along_axis(probabilities, np.asarray(outputs["class_map"])[..., None], -1)[..., 0]
        compare("scores", outputs["scores"], best, served.tolerance)
        compare("class_map", chosen, best, served.tolerance)


def _class_names(model, names):
    """Returns one name for each value of a class map; with a single class, the first one is "background"."""
    classes = model.classes if hasattr(model, "classes") else model.num_classes
    names = names or getattr(model, "class_names", None)
    if names is None:
        return numbered(labels_of(classes))
    return ("background", *names) if classes == 1 else names


def _answer(logits):
    """Returns the outputs of the signatures: the most probable class of each pixel, and its probability."""
    logits = of_each_label(tf.cast(logits, tf.float32))
    best = tf.reduce_max(logits, axis=-1)
    return {
        "class_map": tf.argmax(logits, axis=-1, output_type=tf.int32),
        "scores": tf.exp(best - tf.reduce_logsumexp(logits, axis=-1)),
    }
