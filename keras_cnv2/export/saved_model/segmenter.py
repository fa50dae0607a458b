"""The signatures of segmentation models, from images or one image file of any size to class maps."""

import numpy as np
import tensorflow as tf

from keras_cnv2.export.check import compare, sample_images, tolerance_of
from keras_cnv2.export.saved_model.decoder import is_served
from keras_cnv2.folding.fold import fold
from keras_cnv2.images.header import picture_size, pixel_limit
from keras_cnv2.models.heads import as_taken
from keras_cnv2.segmentation.labels import of_each_label

# One file only: a batch would need files of the same size.
ENCODED = tf.TensorSpec((1,), tf.string, "encoded")


def functions(model, images, checked, reading, folded):
    """Returns the functions of a segmentation model's signatures.

    Args:
        model: A segmentation model, see `keras_cnv2.export.outputs.is_segmenter`.
        images: `tf.TensorSpec` of the images.
        checked: Function that casts images to float32, with an error for shapes that the model cannot take.
        reading: `keras_cnv2.images.pictures.Reading`, how image files are read.
        folded: Bool, whether to fold the model.

    Returns:
        Dict {signature name: (function, list of `tf.TensorSpec`)}.
    """
    logits = fold(model) if folded else model

    def classify(images):
        return answer(logits(checked(images), training=False))

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
        image = as_taken(model, image)
        return classify(image)

    found = {"serving_default": (classify, [images])}
    if images.shape[1:].as_list() == [None, None, 3]:
        found["serve_jpeg"] = (serve_jpeg, [ENCODED])
    return found


def answer(logits):
    """Returns the outputs of the signatures: the most probable class of each pixel, and its probability."""
    logits = of_each_label(tf.cast(logits, tf.float32))
    best = tf.reduce_max(logits, axis=-1)
    return {
        "class_map": tf.argmax(logits, axis=-1, output_type=tf.int32),
        "scores": tf.exp(best - tf.reduce_logsumexp(logits, axis=-1)),
    }


def check(signatures, model, images):
    """Raises an `ExportError` unless the outputs of every signature are the model's.

    Args:
        signatures: Signatures of the loaded SavedModel.
        model: The model that was exported.
        images: Synthetic images `(N, H, W, channels)` in the model's range.
    """
    serve = signatures["serving_default"]
    agree(serve(images=tf.cast(images, serve.inputs[0].dtype)), model, images)
    if "serve_jpeg" in signatures:
        picture = sample_images(*images.shape[1:], batch=1, seed=1)
        encoded = tf.io.encode_png(tf.cast(picture[0], tf.uint8))
        picture = as_taken(model, picture)
        agree(signatures["serve_jpeg"](encoded=encoded[None]), model, picture)


def agree(outputs, model, images):
    """Raises an `ExportError` unless the outputs are the model's.

    The class maps are compared by the probabilities of their classes, because rounding may choose another one of
    nearly equally probable classes.
    """
    probabilities = np.asarray(tf.nn.softmax(of_each_label(tf.cast(model(images, training=False), tf.float32))))
    best = probabilities.max(-1)
    chosen = np.take_along_axis(probabilities, np.asarray(outputs["class_map"])[..., None], -1)[..., 0]
    compare("scores", outputs["scores"], best, tolerance_of(model))
    compare("class_map", chosen, best, tolerance_of(model))
