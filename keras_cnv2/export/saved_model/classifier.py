"""A model's signatures: the functions that a SavedModel offers, as a `tf.Module`."""

import keras
import tensorflow as tf

from keras_cnv2.arguments import positive_int
from keras_cnv2.checkpoints.metadata import default_activation
from keras_cnv2.export.outputs import (
    check_input_dtype,
    has_classes,
    image_sides,
    is_segmenter,
    labels_of,
    with_features,
)
from keras_cnv2.export.saved_model import decoder, segmenter
from keras_cnv2.export.saved_model.graphs import checked_images, label_table, with_signatures
from keras_cnv2.fcmae import FCMAE
from keras_cnv2.fcmae.masking import random_hidden
from keras_cnv2.folding.fold import fold
from keras_cnv2.images.normalization import preprocess_input
from keras_cnv2.images.pictures import check_resize
from keras_cnv2.models.backbone import ConvNeXtV2Backbone
from keras_cnv2.models.classifier import ConvNeXtV2
from keras_cnv2.models.pictures import IMAGE_SIZE
from keras_cnv2.models.stages import total_stride

# Of the masks of an FCMAE where none are given.
SEED = 0


def served_module(model, *, image_size, resize, top, input_dtype, max_pixels, folded, scratch):
    """The signatures of a model, and what they need.

    Args:
        model: A classifier, backbone, FCMAE or segmentation model.
        image_size, resize, top, input_dtype, max_pixels: See `export_saved_model`.
        folded: Bool, whether to fold the model.
        scratch: Path of a folder for what is read when the module is saved.

    Returns:
        A `tf.Module` that holds the variables and the table of names, and {name of the signature: function}.
    """
    if is_segmenter(model):
        return _segmentation(model, image_size, resize, input_dtype, max_pixels, folded, scratch)
    if not isinstance(model, (ConvNeXtV2, ConvNeXtV2Backbone, FCMAE)):
        raise ValueError(
            "Exported are ConvNeXtV2, ConvNeXtV2Backbone, FCMAE, and UPerNet and DeepLabV3+ on such a backbone; other "
            f"models by Keras: keras_cnv2.fold(model).export(path). Received: model={model!r}"
        )
    _check(model, resize, top, input_dtype, max_pixels)
    height, width = image_sides(model, image_size)
    channels = (model.backbone if isinstance(model, FCMAE) else model).input_shape[-1]
    images = tf.TensorSpec((None, height, width, channels), input_dtype, "images")
    smallest = total_stride(model.stem_stride)

    def checked(images):
        return checked_images(images, smallest, max_pixels)

    is_fcmae = isinstance(model, FCMAE)
    encoder = with_features(model.backbone if is_fcmae else model)
    encoder = fold(encoder) if folded and not is_fcmae else encoder  # an FCMAE's decoder needs the encoder as it is
    module = tf.Module()
    functions = {"features": (lambda images: _features(encoder(checked(images))), [images])}
    if is_fcmae:
        functions |= _reconstruction(model, images, checked)
    elif not has_classes(model):
        functions["serving_default"] = functions["features"]
    else:
        module.labels = label_table(labels_of(model), scratch)
        answer = _Answer(model, min(top, model.classes), module.labels)
        functions["serving_default"] = (lambda images: answer(encoder(checked(images))), [images])
        side = picture_side(model, height, width)
        if side and channels in (1, 3):
            to_images = decoder.decoder(side, resize or model.resize, channels, max_pixels)
            functions["serve_jpeg"] = (_picture_classifier(model, encoder, answer, to_images), [decoder.ENCODED])
    return with_signatures(module, functions)


def _segmentation(model, image_size, resize, input_dtype, max_pixels, folded, scratch):
    """`served_module` of a segmentation model."""
    if resize is not None:
        raise ValueError(f"Segmentation models see pictures at their own size. Received: resize={resize!r}")
    positive_int("max_pixels", max_pixels)
    check_input_dtype(model, input_dtype)
    backbone, sides = model.backbone, image_sides(model, image_size)
    images = tf.TensorSpec((None, *sides, backbone.input_shape[-1]), input_dtype, "images")
    module = tf.Module()
    module.labels = label_table(labels_of(model), scratch)

    def checked(images):
        return checked_images(images, total_stride(backbone.stem_stride), max_pixels)

    return with_signatures(module, segmenter.functions(model, images, checked, max_pixels, folded))


def _check(model, resize, top, input_dtype, max_pixels):
    check_resize(resize)
    positive_int("top", top)
    positive_int("max_pixels", max_pixels)
    check_input_dtype(model, input_dtype)
    if resize is not None and not has_classes(model):
        raise ValueError(f"Only classifiers take pictures and resize them; others take images. Received: {resize=}")
    if has_classes(model) and to_probabilities(model) is None:
        raise ValueError(
            "Classifiers are exported with softmax, sigmoid or no activation. "
            f"Received: classifier_activation={model.classifier_activation!r}"
        )


def picture_side(model, height, width):
    """The side of the images that are made of pictures; `None` if they are not square."""
    if height != width:
        return None
    return height or model.image_size or IMAGE_SIZE


def _features(outputs):
    return {name: tf.cast(values, tf.float32) for name, values in outputs.items() if name != "scores"}


def to_probabilities(model):
    """What makes probabilities of a classifier's outputs, `None` if nothing is known to."""
    activations = {
        keras.activations.softmax: tf.identity,
        keras.activations.sigmoid: tf.identity,
        keras.activations.linear: getattr(tf.nn, default_activation(model.classes)),
    }
    return activations.get(keras.activations.get(model.classifier_activation))


class _Answer:
    """From a classifier's outputs to what its signatures return."""

    def __init__(self, model, top, labels):
        self.probabilities, self.top, self.labels = to_probabilities(model), top, labels

    def __call__(self, outputs, decoded=None):
        probabilities = self.probabilities(tf.cast(outputs["scores"], tf.float32))
        scores, ids = tf.math.top_k(probabilities, self.top)
        if decoded is not None:
            known = decoded[:, None]
            probabilities, scores = (tf.where(known, values, 0.0) for values in (probabilities, scores))
            ids = tf.where(known, ids, -1)
        names = self.labels.lookup(tf.cast(ids, tf.int64))
        answer = {"probabilities": probabilities, "classes": names, "class_ids": ids, "scores": scores}
        return answer if decoded is None else {**answer, "decoded": decoded}


def _picture_classifier(model, encoder, answer, to_images):
    def serve_jpeg(encoded):
        images, decoded = to_images(encoded)
        images = images if model.include_preprocessing else preprocess_input(images)
        return answer(encoder(images), decoded)

    return serve_jpeg


def _reconstruction(model, images, checked):
    """The functions of an FCMAE that paint hidden patches."""
    hidden = tf.TensorSpec((None, *model.grid), tf.float32, "hidden")

    def paint(images, hidden):
        images = checked(images)
        return model.paint(images, model(images, hidden=hidden, training=False))

    def reconstruct(images, hidden):
        visible = tf.reduce_sum(1 - hidden, (1, 2))
        fits = tf.debugging.assert_equal(
            visible, float(model.visible), f"Masks leave {model.visible} patches of each image visible"
        )
        with tf.control_dependencies([fits]):
            return {"reconstruction": paint(images, hidden)}

    def with_masks(images):
        hidden = random_hidden(tf.shape(images)[0], *model.grid, model.visible, SEED)
        return {"reconstruction": paint(images, hidden), "hidden": hidden}

    return {"reconstruct": (reconstruct, [images, hidden]), "serving_default": (with_masks, [images])}
